"""The doctor's findings on machines that it is told about: each trouble of the debugging log has its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infini_eval.cli import doctor_checks
from infini_eval.cli.main import main
from infini_eval.planning import devices
from infini_eval.planning.devices import Gpu

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559, 0, "570.1")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, doctor_checks.CheckResult]]:
    """Examine a machine with these GPUs, versions and facts; findings by subject."""

    def examine(
        gpus=None, cuda="13.0", versions=None, libraries=("libbitsandbytes_cuda130.so",), triton=True, model=None
    ):
        known = {"torch": "2.13.0", "transformers": "5.23.0", "bitsandbytes": "0.50.2", **(versions or {})}
        monkeypatch.setattr(doctor_checks, "find_gpus", lambda: gpus)
        monkeypatch.setattr(doctor_checks, "torch_cuda", lambda: cuda)
        monkeypatch.setattr(doctor_checks, "version", lambda name: known.get(name, "1.0"))
        monkeypatch.setattr(doctor_checks, "bitsandbytes_libraries", lambda: list(libraries))
        monkeypatch.setattr(doctor_checks, "is_importable", lambda name: triton)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        return {finding.subject: finding for finding in doctor_checks.examine(model)}

    return examine


def test_a_good_gpu_machine_has_nothing_wrong(machine):
    found = machine(gpus=[H100])
    assert not [finding for finding in found.values() if finding.status == "wrong"]
    assert "81,559 MiB" in found["gpu"].text


def test_cpu_build_of_torch_on_a_gpu_machine(machine):
    found = machine(gpus=[H100], cuda=None)["torch"]
    assert found.status == "wrong"
    assert "CPU build" in found.text
    assert "pip install torch" in str(found.mend)


def test_cpu_build_of_torch_without_gpus_is_fine(machine):
    assert machine(gpus=None, cuda=None)["torch"].status == "ok"


def test_cpu_only_bitsandbytes(machine):
    assert machine(gpus=[H100], libraries=["libbitsandbytes_cpu.so"])["bitsandbytes"].status == "wrong"


def test_missing_triton(machine):
    assert machine(gpus=[H100], triton=False)["triton"].mend == "pip install triton"


def test_missing_needed_package(machine):
    found = machine(versions={"scipy": None})["packages"]
    assert found.status == "wrong"
    assert "scipy" in found.text


def test_transformers_too_old_for_a_model_type(machine, monkeypatch):
    monkeypatch.setattr(doctor_checks, "knows_model_type", lambda kind: False)
    found = machine(model="llama-4-scout")["model"]
    assert found.status == "wrong"
    assert "llama4" in found.text
    assert found.mend == "pip install --upgrade transformers"


def test_offline_is_a_note(machine):
    assert machine()["hub"].status == "note"


def test_unreachable_hub_and_token_without_its_value(tmp_path: Path):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path)}
    state = doctor_checks.hub_state(environment)
    assert not state.reachable
    assert state.has_token
    assert "hf_secret" not in repr(state)
    assert state.cache == tmp_path / "hub"


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 5120, 570.1'\necho 'NVIDIA GB10, [N/A], [N/A], 580.2'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = devices.find_gpus()
    assert found == [Gpu("NVIDIA H100 80GB HBM3", 81559, 5120, "570.1"), Gpu("NVIDIA GB10", 0, 0, "580.2")]
    assert "5,120 MiB in use" in str(found[0])


def test_installed_packages_are_found_without_importing_them():
    import torch

    assert doctor_checks.version("torch") == torch.__version__
    assert doctor_checks.torch_cuda() == torch.version.cuda
    assert doctor_checks.knows_model_type("llama4_text")
    assert not doctor_checks.knows_model_type("brand_new")
    assert doctor_checks.version("no-such-distribution") is None


def test_command_prints_every_finding(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status = main(["doctor"])
    text = capsys.readouterr().out
    assert status in (0, 1)
    assert {"python", "torch", "packages", "hub", "disk"} <= {
        line.split()[1] for line in text.splitlines() if line[:1] in "✓·-✗" and line.strip()
    }
