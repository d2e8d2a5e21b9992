"""Another processor on this machine: QEMU, the target's operating system and runtimes, without root and cached."""
