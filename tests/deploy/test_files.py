"""What is in deploy/ is understood by the tools that it is for, and speaks of what there is."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.fleet.scaling import Policy
from server.fleet.shape import FleetShape, fleet_settings
from server.metrics import Metrics
from server.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"


def tool(name: str, why_absent: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is {why_absent}")
    return found


def shown_names() -> set[str]:
    families = text_string_to_metric_families(Metrics().to_text().decode())
    names = set()
    for family in families:
        ending = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + end for end in ending.get(family.type, [""])}
    return names


def test_rules_fire_as_their_examples_say() -> None:
    promtool = tool("promtool", "not installed")
    for command in (["check", "rules", RULES], ["test", "rules", "tests/deploy/rules_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", [RULES, DASHBOARD])
def test_rules_and_dashboard_ask_only_for_metrics_that_there_are(file: Path) -> None:
    asked = set(re.findall(r"\bgdkvm_\w+", file.read_text()))
    assert len(asked) >= 5
    assert asked <= shown_names()


def test_every_panel_has_a_query_and_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}) == len(panels) >= 10
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_grafana_knows_how_often_prometheus_looks() -> None:
    folder = DEPLOY / "grafana" / "provisioning" / "datasources"
    (source,) = [each for file in folder.iterdir() for each in documents(file)[0]["datasources"]]
    (scraping,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def documents(file: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def test_only_settings_that_there_are_are_set() -> None:
    known = {f"GDKVM_{name.upper()}" for name in Settings.model_fields}
    set_here = {
        name
        for file in DEPLOY.rglob("*")
        if file.is_file()
        for name in re.findall(r"\bGDKVM_\w+", file.read_text())
    }
    assert set_here
    assert set_here <= known


def test_a_pod_is_probed_drained_and_scaled() -> None:
    kinds = {each["kind"]: each for each in documents(DEPLOY / "kubernetes" / "gdkvm.yml")}
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes["readinessProbe"] == "/readyz"
    assert probes["livenessProbe"] == probes["startupProbe"] == "/livez"
    grace_s = pod["terminationGracePeriodSeconds"]
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace_s > pause_s + 2 * Settings().drain_s
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"].items() <= labels.items()
    assert kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gdkvm"


def test_a_fleet_on_ray_is_one_that_can_share_sessions_and_drain() -> None:
    (config,) = documents(DEPLOY / "ray" / "serve.yaml")
    (application,) = config["applications"]
    shape = FleetShape.model_validate(application["args"])
    Policy(**shape.policy)
    told = application["runtime_env"]["env_vars"]
    values = {name.removeprefix("GDKVM_").lower(): value for name, value in told.items()}
    settings = fleet_settings(Settings(**values))
    assert settings.max_sessions == shape.max_sessions
    assert settings.drain_s == shape.drain_s
    assert not settings.is_loopback()
    assert settings.api_keys_file is not None
    module, _, name = application["import_path"].partition(":")
    assert f"def {name}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()


@dataclass(frozen=True)
class Deployed:
    """How a server is started: its settings, and the folders that outlive it with their sizes."""

    settings: dict[str, Any]
    folders: dict[str, str | None]


def in_compose() -> Deployed:
    (compose,) = documents(DEPLOY / "compose.yml")
    server = compose["services"]["gdkvm"]
    volumes = [volume.split(":") for volume in server["volumes"]]
    assert server["read_only"]
    kept: dict[str, str | None] = {each[1]: None for each in volumes if each[2:] != ["ro"]}
    return Deployed(server["environment"], kept)


def in_pod() -> Deployed:
    pod = documents(DEPLOY / "kubernetes" / "gdkvm.yml")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    sizes = {each["name"]: each.get("emptyDir") for each in pod["volumes"]}
    mounts = [each for each in container["volumeMounts"] if not each.get("readOnly")]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    kept = {each["mountPath"]: sizes[each["name"]]["sizeLimit"] for each in mounts}
    return Deployed(settings, kept)


def in_unit() -> Deployed:
    text = (DEPLOY / "systemd" / "gdkvm.service").read_text()
    (state,) = re.findall(r"(?m)^StateDirectory=(.+)$", text)
    assert "ProtectSystem=strict" in text
    return Deployed(
        dict(re.findall(r"(?m)^Environment=(\w+)=(.+)$", text)), {f"/var/lib/{state}": None}
    )


@pytest.mark.parametrize("start", [in_compose, in_pod, in_unit])
def test_a_server_that_may_write_little_has_room_for_what_outlives_it(
    start: Callable[[], Deployed],
) -> None:
    told = start()
    given = {name.removeprefix("GDKVM_").lower(): value for name, value in told.settings.items()}
    settings = Settings(**given)
    clips = [size for name, size in told.folders.items() if settings.clip_dir.is_relative_to(name)]
    assert len(clips) == 1
    assert any(Path(settings.snapshot_store).is_relative_to(each) for each in told.folders)
    most_bytes = settings.clip_store_bytes + settings.study_max_bytes
    assert clips[0] is None or int(clips[0].removesuffix("Gi")) << 30 > most_bytes


def test_keys_in_a_container_are_in_a_folder_of_its_host_so_that_a_change_is_seen() -> None:
    (compose,) = documents(DEPLOY / "compose.yml")
    server = compose["services"]["gdkvm"]
    file = Path(server["environment"]["GDKVM_API_KEYS_FILE"])
    mounted = [volume.split(":")[1] for volume in server["volumes"]]
    assert str(file.parent) in mounted
    assert str(file) not in mounted


def test_compose_mounts_only_what_is_in_the_repository_or_said_to_be_made() -> None:
    (compose,) = documents(DEPLOY / "compose.yml")
    sources = [
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    ]
    missing = {each for each in sources if not (DEPLOY / each).exists()}
    assert missing == {"./keys"}


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "absent here, and not among what the gate installs")
    unit = tmp_path / "gdkvm.service"
    text = (DEPLOY / "systemd" / "gdkvm.service").read_text()
    unit.write_text(text.replace("/opt/gdkvm/bin/gdkvm", "/bin/true").replace("User=gdkvm\n", ""))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "gdkvm" in line]
    assert (done.returncode, ours) == (0, [])
