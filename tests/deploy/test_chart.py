"""The chart is valid for Kubernetes and the Prometheus Operator, and consistent."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from tests.deploy.chart import CHART, OPERATOR, VALUES, RenderedChart, helm
from tests.deploy.schemas import assert_is_valid_for_kubernetes
from tests.deploy.tools import DEPLOY

FILES = [pytest.param(path, id=path.name.removesuffix("-values.yaml")) for path in VALUES]
KUBERNETES = ("1.25", "1.37")
"""The oldest version that the chart supports, and the newest with published schemas."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="module", params=FILES)
def rendered(home: Path, request: pytest.FixtureRequest) -> RenderedChart:
    return RenderedChart(home, f"--values={request.param}")


@pytest.fixture(scope="module")
def everything(home: Path) -> RenderedChart:
    return RenderedChart(home, f"--values={CHART / 'ci' / 'everything-values.yaml'}")


@pytest.mark.parametrize("values", [None, *FILES])
def test_the_chart_passes_helm_lint(home, values):
    flags = () if values is None else (f"--values={values}",)
    linted = helm(home, "lint", "--strict", CHART, *flags)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_field_is_in_the_schemas_of_kubernetes(rendered, version):
    documents = [document for document in rendered.documents if document["kind"] not in OPERATOR]
    assert len(documents) >= 3
    for document in documents:
        assert_is_valid_for_kubernetes(document, version)


def test_every_field_is_in_the_schemas_of_the_prometheus_operator(home, everything):
    # Imported by name, because mypy would otherwise read all of it: 9 MB.
    models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    pods = RenderedChart(home, "--set=existingSecret=cartesia,podMonitor.enabled=true")
    for kind, source in zip(OPERATOR, (pods, everything, everything), strict=True):
        document = source.one(kind)
        model = getattr(models, kind).model_validate(document)
        parsed = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
        # A model accepts a misspelt field, and drops it.
        assert parsed["spec"] == document["spec"]


def test_the_agent_ends_before_its_replacement_starts(rendered):
    spec = rendered.one("Deployment")["spec"]
    if spec["replicas"] > 1:
        pytest.skip("replicas share a database")
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert rendered.pod["terminationGracePeriodSeconds"] > 10
    for claim in rendered.all("PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_replicas_share_a_database_and_replace_each_other_one_by_one(home):
    chart = RenderedChart(home, f"--values={CHART / 'ci' / 'replicas-values.yaml'}")
    spec = chart.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    assert not chart.all("PersistentVolumeClaim")
    assert "state" not in [each["name"] for each in chart.pod["volumes"]]
    [spread] = chart.pod["topologySpreadConstraints"]
    budget = chart.one("PodDisruptionBudget")["spec"]
    assert spread["labelSelector"] == budget["selector"] == spec["selector"]
    [endpoint] = chart.one("ServiceMonitor")["spec"]["endpoints"]
    [instance] = [e for e in endpoint["relabelings"] if e.get("targetLabel") == "instance"]
    assert instance["sourceLabels"] == ["__meta_kubernetes_pod_name"]


def test_the_pod_meets_the_restricted_pod_security_standard(rendered):
    pod, container = rendered.pod["securityContext"], rendered.container["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"] is True
    for where in (rendered.pod, *rendered.all("ServiceAccount")):
        assert where["automountServiceAccountToken"] is False
    # Without the variables of every service in the namespace.
    assert rendered.pod["enableServiceLinks"] is False
    volume_types = {key for volume in rendered.pod["volumes"] for key in volume} - {"name"}
    assert volume_types <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert_secrets_are_readable_by_the_group_only(rendered.pod["volumes"])


def assert_secrets_are_readable_by_the_group_only(volumes):
    ours = {"secrets", "web-config"}
    modes = {each["secret"]["defaultMode"] for each in volumes if each["name"] in ours}
    assert modes == {0o440}


def test_user_and_state_folder_are_those_of_the_image(rendered):
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    user = rendered.pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{rendered.pod['securityContext']['runAsGroup']}\n" in dockerfile
    assert rendered.pod["securityContext"]["fsGroup"] == user
    mounts = {each["name"]: each["mountPath"] for each in rendered.container["volumeMounts"]}
    assert f"\nVOLUME {mounts.get('state', '/data')}\n" in dockerfile
    assert "requests" in rendered.container["resources"]


def labels_of_the_pod(rendered: RenderedChart) -> dict[str, str]:
    labels: dict[str, str] = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    return labels


def test_the_service_includes_pods_that_are_not_ready(rendered):
    service = rendered.one("Service")["spec"]
    labels = labels_of_the_pod(rendered)
    assert service["publishNotReadyAddresses"] is True
    assert service["selector"].items() <= labels.items()
    (port,) = rendered.container["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert rendered.one("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_probes_ask_for_health_and_readiness(rendered):
    probes = {name: rendered.container[name]["httpGet"] for name in PROBES}
    assert {name: probe["path"] for name, probe in probes.items()} == PROBES


def test_probes_use_tcp_when_clients_need_a_certificate(home):
    strict = "webConfig.tls_server_config.client_auth_type=RequireAndVerifyClientCert"
    container = RenderedChart(home, f"--set=existingSecret=cartesia,{strict}").container
    assert [container[name].get("httpGet") for name in PROBES] == [None] * 3
    assert [container[name]["tcpSocket"] for name in PROBES] == [{"port": "http"}] * 3


PROBES = {
    "livenessProbe": "/-/healthy",
    "readinessProbe": "/-/ready",
    "startupProbe": "/-/healthy",
}


def test_every_mount_has_a_volume_and_every_volume_an_object(rendered):
    volumes = {volume["name"]: volume for volume in rendered.pod["volumes"]}
    mounts = [mount["name"] for mount in rendered.container["volumeMounts"]]
    assert sorted(mounts) == sorted(volumes)
    rendered_objects = {
        (kind, document["metadata"]["name"])
        for kind in ("ConfigMap", "PersistentVolumeClaim", "Secret")
        for document in rendered.all(kind)
    }
    named = {
        *(("ConfigMap", v["configMap"]["name"]) for v in volumes.values() if "configMap" in v),
        *(("Secret", v["secret"]["secretName"]) for v in volumes.values() if "secret" in v),
        *(
            ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"])
            for v in volumes.values()
            if "persistentVolumeClaim" in v
        ),
    }
    from_the_user = {
        ("Secret", "cartesia"),
        ("Secret", "cartesia-tls"),
        ("PersistentVolumeClaim", "state"),
    }
    assert named - from_the_user == rendered_objects


def test_the_monitors_select_the_agent_and_set_stable_labels(home, everything):
    pods = RenderedChart(home, "--set=existingSecret=cartesia,podMonitor.enabled=true")
    (at_service,) = everything.one("ServiceMonitor")["spec"]["endpoints"]
    (at_pod,) = pods.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    selector = everything.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= everything.one("Service")["metadata"]["labels"].items()
    assert everything.one("Service")["spec"]["ports"][0]["name"] == at_service["port"]
    assert pods.container["ports"][0]["name"] == at_pod["port"]
    selector = pods.one("PodMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels_of_the_pod(pods).items()
    assert (at_service["scheme"], at_pod["scheme"]) == ("https", "http")
    for endpoint in (at_service, at_pod):
        assert endpoint["path"] == "/metrics"
        fixed = {
            rule.get("targetLabel"): rule.get("replacement") for rule in endpoint["relabelings"]
        }
        assert fixed["job"] == "cartesia-exporter"
        assert fixed["instance"] == "voices/watch-cartesia-exporter"
        assert {"action": "labeldrop", "regex": "pod"} in endpoint["relabelings"]


def test_the_rules_equal_the_shipped_ones_with_the_given_runbook_url(home, everything):
    shipped = (DEPLOY / "prometheus" / "rules" / "cartesia.rules.yml").read_text(encoding="utf-8")
    plain = RenderedChart(home, "--set=existingSecret=cartesia,prometheusRule.enabled=true")
    assert plain.one("PrometheusRule")["spec"] == yaml.safe_load(shipped)
    runbooks = "https://git.example.com/cartesia-exporter/docs/runbooks.md#"
    expected = shipped.replace(": docs/runbooks.md#", f": {runbooks}")
    assert everything.one("PrometheusRule")["spec"] == yaml.safe_load(expected)


def test_the_network_policy_allows_only_dns_and_https_by_default(home):
    flags = "--set=existingSecret=cartesia,networkPolicy.enabled=true"
    rendered = RenderedChart(home, flags)
    spec = rendered.one("NetworkPolicy")["spec"]
    ports = [(port["port"], port["protocol"]) for rule in spec["egress"] for port in rule["ports"]]
    assert ports == [(53, "UDP"), (53, "TCP"), (443, "TCP")]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"]["matchLabels"].items() <= labels_of_the_pod(rendered).items()


def test_the_notes_warn_of_missing_settings(home):
    flags = ("--set=existingSecret=cartesia", "--set=persistence.enabled=false")
    done = helm(home, "install", "watch", CHART, "--dry-run=client", *flags)
    assert done.returncode == 0, done.stderr
    for warning in (
        "persistence is disabled",
        "No scrape is configured",
        "No receiver is notified",
    ):
        assert warning in done.stdout


def test_the_chart_has_the_version_of_the_agent():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert re.search(rf"{re.escape(KUBERNETES[0])}\b", chart["kubeVersion"])
    # docs/installation.md pushes the image that the chart pulls.
    text = (DEPLOY.parent / "docs" / "installation.md").read_text("utf-8")
    pushed = re.findall(r"REGISTRY/cartesia-exporter:(\S+)", text)
    assert set(pushed) == {__version__}
