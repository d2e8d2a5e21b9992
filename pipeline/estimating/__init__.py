"""How long an inference takes on a processor that is not at hand, from what was counted, with an honest error bar."""
