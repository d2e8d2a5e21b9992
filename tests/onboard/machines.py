"""Folders that look like the /proc and /sys of machines: a Raspberry Pi 4, a laptop, and one that tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Tree = Mapping[str, str]  # path → content, as a kernel writes it

STAT = "cpu  {0}\ncpu0 {0}\ncpu1 {0}\nintr 1 2 3\nctxt 7\n"


def pi(*, bits: str, mhz: int, celsius: float) -> Tree:
    """Return a Raspberry Pi 4 with four cores."""
    return {
        **{f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq": f"{mhz * 1000}\n" for n in range(4)},
        **{f"sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": "1500000\n" for n in range(4)},
        **{f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": "ondemand\n" for n in range(4)},
        "sys/devices/platform/soc/soc:firmware/get_throttled": f"{bits}\n",
        "sys/class/thermal/thermal_zone0/temp": f"{celsius * 1000:.0f}\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nCPU part\t: 0xd08\n",
    }


def laptop(*, microjoules: int, slowed: int = 0, governor: str = "powersave", mhz: int = 2600) -> Tree:
    """Return a laptop with two cores and RAPL, whose disk is hotter than its processor."""
    cpus: dict[str, str] = {}
    for n in range(2):
        cpus |= {
            f"cpu{n}/cpufreq/scaling_cur_freq": f"{mhz * 1000}\n",
            f"cpu{n}/cpufreq/cpuinfo_max_freq": "4200000\n",
            f"cpu{n}/cpufreq/scaling_governor": f"{governor}\n",
            f"cpu{n}/thermal_throttle/core_throttle_count": f"{slowed}\n",
            f"cpu{n}/thermal_throttle/package_throttle_count": "0\n",
        }
    return {
        **{f"sys/devices/system/cpu/{name}": text for name, text in cpus.items()},
        "sys/devices/system/cpu/cpufreq/boost": "1\n",
        "sys/class/hwmon/hwmon0/name": "nvme\n",
        "sys/class/hwmon/hwmon0/temp1_input": "71000\n",
        "sys/class/hwmon/hwmon1/name": "coretemp\n",
        "sys/class/hwmon/hwmon1/temp1_input": "48000\n",
        "sys/class/hwmon/hwmon1/temp2_input": "52000\n",
        "sys/class/powercap/intel-rapl:0/name": "package-0\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": f"{microjoules}\n",
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
        "sys/class/powercap/intel-rapl:0:0/name": "core\n",
        "sys/class/powercap/intel-rapl:0:0/energy_uj": "17\n",
        "sys/class/powercap/intel-rapl:1/name": "psys\n",
        "sys/class/powercap/intel-rapl:1/energy_uj": "23\n",
        "proc/loadavg": "1.75 0.40 0.10 2/900 77\n",
    }


def process(pid: int, parent: int, *ticks: int, name: str = "python") -> Tree:
    """Return a process that took user, system, and its ended children's user and system time."""
    rest = " ".join(map(str, ticks))
    return {f"proc/{pid}/stat": f"{pid} ({name}) R {parent} 1 1 0 -1 4194304 1 0 0 0 {rest} 20 0 1 0 100 0 0\n"}


def write(root: Path, *trees: Tree) -> Path:
    """Write trees over what is there; return the root."""
    for tree in trees:
        for name, text in tree.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return root
