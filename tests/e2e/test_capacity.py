"""What people see of a machine's capacity: the probe, and the list of machines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from network import Network, program


def probe(network: Network, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [program(), "agent", "probe", "--state", str(network.folder / "looked-at"), *flags]
    return subprocess.run(command, env=network.env, capture_output=True, text=True, timeout=120)


def test_a_probe_shows_what_an_agent_would_offer_and_joins_nothing(network):
    asked = probe(network, "--json", "--cpus", "2")
    assert asked.returncode == 0, asked.stderr
    seen = json.loads(asked.stdout)
    assert seen["cpu_millis"] == 2000 and seen["pythons"] and seen["tier"] and seen["measured"] is None
    # Two cores at half their clock in GHz each, to the nearest thousandth.
    assert seen["nominal"]["profile"] == "nominal"
    assert seen["nominal"]["cpu_ucu_thousandths"] == seen["clock_mhz"]
    assert len(seen["nominal"]["devices"]) == len(seen["temperatures_celsius"])
    shown = probe(network, "--cpus", "2").stdout
    assert f"{seen['clock_mhz'] / 1000:.3f} UCU (nominal)" in shown and "Not measured yet" in shown
    assert not (network.folder / "looked-at").exists()
    assert not list(network.folder.glob(".farlane-probe-*"))


def test_a_calibration_prints_every_kind_of_work_with_its_profile(network):
    measured = probe(network, "--calibrate", "--json")
    if measured.returncode == 1 and "something else uses its processor" in measured.stderr:
        return  # True of a machine that tests run on; said, and with what to do about it.
    assert measured.returncode == 0, measured.stderr
    seen = json.loads(measured.stdout)
    vector = seen["measured"]
    assert vector["profile"] == "measured" and set(vector["work"]) == {"fp32", "bf16", "int8", "memory"}
    assert all(kind["ucu_thousandths"] > 0 for kind in vector["work"].values())
    assert vector["work"]["fp32"]["unit"] and vector["work"]["memory"]["mib_s"] > 0
    # Two seconds of processor time; the probe of interpreters and sandbox is not in it.
    assert 0 < seen["effort"]["cpu_ms"] < 4000


def test_a_gpu_is_measured_by_a_process_of_its_own(network):
    # No GPU and no driver of one: a library that does what the driver's reference says, by the driver's name.
    drivers = network.folder / "drivers"
    drivers.mkdir()
    code = Path(__file__).parents[2] / "agent/daemon/tests/cuda.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", drivers / "libcuda.so.1", code], check=True)
    network.env["LD_LIBRARY_PATH"] = str(drivers)
    before = json.loads(probe(network, "--json").stdout)
    if before["nominal"]["devices"][0]["model"] != "Pretended GPU":
        return  # A machine with GPUs of its own: NVML is asked first.
    # 4 multiprocessors of 64 cores.
    assert before["nominal"]["devices"][0]["cuda_cores"] == 256
    measured = probe(network, "--calibrate", "--json")
    if measured.returncode == 1 and "something else uses its processor" in measured.stderr:
        return  # As above.
    assert measured.returncode == 0, measured.stderr
    (device,) = json.loads(measured.stdout)["measured"]["devices"]
    assert device["id"] == before["nominal"]["devices"][0]["id"]
    assert 0 < device["fp32_mops"] < device["bf16_mops"] < device["int8_mops"] and device["memory_mib_s"] > 0
    assert device["ucu_thousandths"]["fp32"] == device["fp32_mops"] * 1000 // 135_000


def test_the_list_of_machines_names_the_profile(network):
    (node,) = network.json("nodes", "list")
    assert node["nominal"]["cpu_ucu_thousandths"] > 0
    shown = network.cli("nodes")
    assert "UCU (nominal)" in shown or "UCU (measured), fp32" in shown
