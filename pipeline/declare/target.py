"""Target profiles: a device that models are made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.declare.words import MOST, Precision, RuntimeName, SizeBytes, Spec

_64_BIT = frozenset({"aarch64", "x86_64"})
# what the package index holds wheels for: architectures, and the last Python
_WHEELS: Mapping[RuntimeName, tuple[frozenset[str], tuple[int, int]]] = {
    "onnxruntime": (_64_BIT, (3, 99)),
    "litert": (_64_BIT, (3, 99)),
    "tflite-runtime": (_64_BIT | {"armv7l"}, (3, 11)),
}


class CpuSpec(Spec):
    """The processor of a target, as its data sheet says."""

    architecture: Literal["aarch64", "armv7l", "x86_64"]
    model: str
    isa: tuple[str, ...] = ()  # as the kernel prints them: neon, asimddp, avx2, avx512_vnni …
    cores: int = Field(ge=1, le=MOST)
    clock_mhz: int = Field(ge=1, le=MOST)
    l1d_bytes: SizeBytes = 0
    l2_bytes: SizeBytes = 0
    l3_bytes: SizeBytes = 0


class MemorySpec(Spec):
    """The memory of a target."""

    size_bytes: SizeBytes
    bandwidth_bytes_per_s: SizeBytes = 0


class TargetLimits(Spec):
    """What must hold for a model to pass on this target; a missing limit is no limit."""

    latency_p95_ms: float | None = Field(None, gt=0)
    size_bytes: SizeBytes | None = None
    peak_memory_bytes: SizeBytes | None = None
    accuracy_drop_pp: float | None = Field(None, ge=0)


class TargetProfile(Spec):
    """A device that a model is made for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    cpu: CpuSpec
    memory: MemorySpec
    os: str
    python: str
    runtime: RuntimeName | Literal["auto"] = "auto"  # "auto": the fastest of those that exist there
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"  # "auto": 1 … cores, the fastest
    precision: Precision = "int8"  # what to ship when it passes; fp32 otherwise
    weight_bits: Literal[7, 8] = 8  # 7 where 8-bit weights saturate: x86 AVX2 without VNNI
    limits: TargetLimits = TargetLimits()
    sources: tuple[str, ...] = ()  # where the figures come from

    @model_validator(mode="after")
    def _has_its_runtime(self) -> TargetProfile:
        missing = f"no wheel for {self.cpu.architecture} and Python {self.python}"
        if not self.runtimes:
            raise ValueError(f'no runtime can be installed there: there is {missing}; Python 3.11 has "tflite-runtime"')
        if self.runtime != "auto" and self.runtime not in self.runtimes:
            others = " or ".join(f'"{each}"' for each in (*self.runtimes, "auto"))
            raise ValueError(f'runtime = "{self.runtime}" cannot be installed there: it has {missing}; say {others}')
        return self

    @property
    def runtimes(self) -> tuple[RuntimeName, ...]:
        """Return the runtimes that have a wheel for this processor and Python."""
        found = re.fullmatch(r"(\d+)\.(\d+).*", self.python)
        python = (int(found[1]), int(found[2])) if found else (3, 0)
        return tuple(
            name
            for name, (architectures, last) in _WHEELS.items()
            if self.cpu.architecture in architectures and python <= last
        )

    @property
    def machine(self) -> TargetProfile:
        """Return it without what only a verdict looks at."""
        return TargetProfile(
            name=self.name,
            title=self.title,
            cpu=self.cpu,
            memory=self.memory,
            os=self.os,
            python=self.python,
        )

    @property
    def judged_threads(self) -> int:
        """Return the number of threads that files are compared with: 1 where the profile leaves it open."""
        return 1 if self.threads == "auto" else self.threads

    @property
    def saturates_int16(self) -> bool:
        """True where u8 x s8 products are added pairwise in 16 bits (x86 ``vpmaddubsw``, no VNNI)."""
        return self.cpu.architecture == "x86_64" and not any("vnni" in flag for flag in self.cpu.isa)
