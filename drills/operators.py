"""The operators under drill, in a namespace of their own: of secrets, and Prometheus's.

Their definitions and programs come from their Go modules, so that Go is needed, and on PATH
`kubeseal`, `sealed-secrets-controller`, `external-secrets`, `prometheus-operator` (the module's
cmd/operator) and `prometheus-config-reloader` (`go install`, or where a module forbids that
`go build` in its folder). Each runs in a pod, with the rights of a ServiceAccount of its own.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from cluster import Cluster, load_image, run

PLACE: Final = Cluster("drill-operators")

MANIFEST: Final = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{name: {name}}}}}
  template:
    metadata: {{labels: {{name: {name}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 1
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532}}
      containers:
        - name: {name}
          image: {image}
          imagePullPolicy: Never
          args: {args}
          volumeMounts: [{{name: tmp, mountPath: /tmp}}]
      volumes: [{{name: tmp, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{name: {name}}}
  ports: [{{name: http, port: 8080}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {scope}
metadata: {{name: drill-{name}}}
rules: {rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {scope}Binding
metadata: {{name: drill-{name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {scope}, name: drill-{name}}}
subjects: [{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}]
"""


@dataclass(frozen=True)
class Operator:
    """A program that watches the cluster: where it comes from, and what it may do."""

    name: str
    module: str
    definitions: str
    scope: str
    rules: list[dict[str, list[str]]]

    def start(self, *args: str) -> None:
        """Install its definitions and run it, with these arguments from now on."""
        image = image_of(self.name, self.version)
        folder = json.loads(run("go", "mod", "download", "-json", self.module))["Dir"]
        definitions = str(Path(folder) / self.definitions)
        PLACE.kubectl("apply", "--server-side", "--force-conflicts", "--filename", definitions)
        found = json.dumps([*args]), json.dumps(self.rules)
        text = MANIFEST.format(
            name=self.name,
            image=image,
            args=found[0],
            rules=found[1],
            scope=self.scope,
            namespace=PLACE.namespace,
        )
        PLACE.kubectl("apply", "--filename=-", input_=text)
        PLACE.rolled_out(f"deployment/{self.name}", seconds=120)

    def remove(self) -> None:
        """Take away what is not in the namespace."""
        if self.scope == "ClusterRole":
            for kind in ("clusterrolebinding", "clusterrole"):
                PLACE.kubectl("delete", kind, f"drill-{self.name}", "--ignore-not-found")

    @property
    def version(self) -> str:
        """The module's version."""
        return self.module.rpartition("@")[2]


def image_of(program: str, version: str) -> str:
    """Bring an image of nothing but a program, in /bin, to the nodes; return its name."""
    image = f"drill/{program}:{version}"
    with TemporaryDirectory() as folder:
        shutil.copy(need(program), folder)
        text = f'FROM scratch\nCOPY {program} /bin/{program}\nENTRYPOINT ["/bin/{program}"]\n'
        Path(folder, "Dockerfile").write_text(text)
        run("docker", "build", "--tag", image, folder)
    load_image(image)
    return image


def need(program: str) -> str:
    """Return where a program is; without it the drill is skipped."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} on PATH: drills/operators.py says where it comes from")
    return found


ALL: Final = ["get", "list", "watch", "create", "update", "patch", "delete"]
SEALED: Final = Operator(
    name="sealed-secrets-controller",
    module="github.com/bitnami-labs/sealed-secrets@v0.30.0",
    definitions="helm/sealed-secrets/crds",
    scope="Role",  # its keys alone: what it may open is the component's to say
    rules=[
        {"apiGroups": [""], "resources": ["secrets", "events"], "verbs": ALL},
        {
            "apiGroups": ["bitnami.com"],
            "resources": ["sealedsecrets", "sealedsecrets/status"],
            "verbs": ALL,
        },
    ],
)
EXTERNAL: Final = Operator(
    name="external-secrets",
    module="github.com/external-secrets/external-secrets@v0.20.4",
    definitions="deploy/crds/bundle.yaml",
    scope="ClusterRole",
    rules=[
        {
            "apiGroups": ["external-secrets.io", "generators.external-secrets.io"],
            "resources": ["*"],
            "verbs": ALL,
        },
        {"apiGroups": [""], "resources": ["secrets", "events"], "verbs": ALL},
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts", "namespaces", "configmaps"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
    ],
)
PROMETHEUS: Final = Operator(
    name="prometheus-operator",
    module="github.com/prometheus-operator/prometheus-operator@v0.85.0",
    definitions="example/prometheus-operator-crd",
    scope="ClusterRole",
    rules=[
        {"apiGroups": ["monitoring.coreos.com"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "delete"]},
        {
            "apiGroups": [""],
            "resources": ["services", "services/finalizers", "endpoints", "events"],
            "verbs": ["get", "create", "update", "delete", "patch"],
        },
        {
            "apiGroups": [""],
            "resources": ["nodes", "namespaces"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["storage.k8s.io"],
            "resources": ["storageclasses"],
            "verbs": ["get"],
        },
    ],
)
