"""Target profiles: a device that models are made for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.declare.words import Precision, RuntimeName, SizeBytes, Spec


class CpuSpec(Spec):
    """The processor of a target, as its data sheet says."""

    architecture: Literal["aarch64", "armv7l", "x86_64"]
    model: str
    isa: tuple[str, ...] = ()  # as the kernel prints them: neon, asimddp, avx2, avx512_vnni …
    cores: int = Field(ge=1)
    clock_mhz: int = Field(ge=1)
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
    runtime: RuntimeName | Literal["auto"] = "auto"  # "auto": onnxruntime or litert, whichever is faster
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"  # "auto": 1 … cores, the fastest
    precision: Precision = "int8"  # what to ship when it passes; fp32 otherwise
    weight_bits: Literal[7, 8] = 8  # 7 where 8-bit weights saturate: x86 AVX2 without VNNI
    limits: TargetLimits = TargetLimits()
    sources: tuple[str, ...] = ()  # where the figures come from

    @property
    def judged_threads(self) -> int:
        """Return the number of threads that files are compared with: 1 where the profile leaves it open."""
        return 1 if self.threads == "auto" else self.threads

    @property
    def saturates_int16(self) -> bool:
        """True where u8 x s8 products are added pairwise in 16 bits (x86 ``vpmaddubsw``, no VNNI)."""
        return self.cpu.architecture == "x86_64" and not any("vnni" in flag for flag in self.cpu.isa)
