"""What becomes of each value of HAMi's chart 2.10: the one place where that is written down."""

from collections.abc import Iterator

CONFIG = {
    "resourceName": "resourceCountName",
    "resourceMem": "resourceMemoryName",
    "resourceMemPercentage": "resourceMemoryPercentageName",
    "resourceCores": "resourceCoreName",
    "resourcePriority": "resourcePriorityName",
    "scheduler.overwriteEnv": "overwriteEnv",
    "devicePlugin.deviceSplitCount": "deviceSplitCount",
    "devicePlugin.deviceMemoryScaling": "deviceMemoryScaling",
    "devicePlugin.deviceCoreScaling": "deviceCoreScaling",
    "devicePlugin.enableNumaTopology": "enableNumaTopology",
    "devicePlugin.preConfiguredDeviceMemory": "preConfiguredDeviceMemory",
    "devicePlugin.runtimeClassName": "runtimeClassName",
    "devices.nvidia.gpuCorePolicy": "gpuCorePolicy",
    "devices.nvidia.libCudaLogLevel": "libCudaLogLevel",
}
"""Value -> key in the section `nvidia:` of device-config.yaml."""

WEBHOOK, KEEPER = ("hami-webhook", "webhook"), ("hami-webhook", "certificates")
EXTENDER, PLUGIN = ("hami-scheduler", "extender"), ("hami-device-plugin", "device-plugin")

ENV = {
    "schedulerName": (
        (WEBHOOK, "SCHEDULER_NAME"),
        (EXTENDER, "HAMI_SCHEDULER_NAME"),
    ),
    "scheduler.forceOverwriteDefaultScheduler": ((WEBHOOK, "FORCE_OVERWRITE_DEFAULT_SCHEDULER"),),
    "scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy": (
        (EXTENDER, "HAMI_NODE_SCHEDULER_POLICY"),
    ),
    "scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy": (
        (EXTENDER, "HAMI_GPU_SCHEDULER_POLICY"),
    ),
    "devices.ascend.enabled": (
        (WEBHOOK, "ENABLE_ASCEND"),
        (KEEPER, "ENABLE_ASCEND"),
        (EXTENDER, "HAMI_ENABLE_ASCEND"),
    ),
}
"""Value -> variables of containers, each as ((workload, container), name)."""

FEATURES = {
    "scheduler.certManager.enabled": "cert-manager",
    "scheduler.overwriteEnv": "overwrite-env",
    "prometheus.enabled": "monitoring",
}
"""Value -> the feature that it switches on."""

SPECIAL = {
    "scheduler.replicas": "feature `high-availability` where there is more than one",
    "device-config.content": "`device-config.yaml`, as it is",
    "scheduler.admissionWebhook.whitelistNamespaces": "the registration's namespace selector",
    "devicePlugin.nvidiaNodeSelector": "node selector of the three DaemonSets",
    "devicePlugin.nodeConfiguration.config": "ConfigMap `hami-node-config`, read by the plugin",
}
"""Value -> in words, what the converter makes of it."""

OURS = "our images are pinned in features/release; patch `images:` of the overlay"
OWN = "the manifests bring what each program needs; patch them in the overlay"
FIXED = "a fixed path of the product"
SAFE = "our containers are not privileged"
DROPPED = {
    "global.imageRegistry": OURS,
    "global.imageTag": OURS,
    "global.imagePullSecrets": "patch the service accounts in the overlay",
    "global.gpuHookPath": FIXED,
    "global.labels": "use `labels:` of the overlay",
    "global.annotations": "use `commonAnnotations:` of the overlay",
    "global.managedNodeSelector": "use devicePlugin.nvidiaNodeSelector",
    "global.managedNodeSelectorEnable": "use devicePlugin.nvidiaNodeSelector",
    "nameOverride": "names are literal, other manifests refer to them",
    "fullnameOverride": "names are literal, other manifests refer to them",
    "namespaceOverride": "the namespace is hami-system",
    "podSecurityPolicy": "gone from Kubernetes",
    "legacyMetrics": "`HAMI_LEGACY_METRICS` of hami-scheduler, `LEGACY_METRICS` of hami-monitor",
    "scheduler.nodeName": "two replicas spread by themselves; patch the Deployment in the overlay",
    "scheduler.nodeLabelSelector": "nodes without cards cost nothing, so none are left out",
    "scheduler.metricsBindAddress": "metrics are on port 9395",
    "scheduler.livenessProbe": "probes are always on",
    "scheduler.leaderElect": "always on",
    "scheduler.kubeScheduler": "kube-scheduler is pinned in features/release; its settings are in "
    "ConfigMap hami-kube-scheduler",
    "scheduler.extender": OWN,
    "scheduler.nodeLockExpire": "without effect in HAMi, too; nodes with late binding have no lock",
    "scheduler.podAnnotations": OWN,
    "scheduler.tolerations": OWN,
    "scheduler.nodeSelector": OWN,
    "scheduler.admissionWebhook.enabled": "pods that did not pass it get no card",
    "scheduler.admissionWebhook.customURL": "the API server calls the Service",
    "scheduler.admissionWebhook.manageNamespaceSelector": "always on",
    "scheduler.admissionWebhook.namespaceSelector": "patch the registration in the overlay",
    "scheduler.admissionWebhook.objectSelector": "patch the registration in the overlay",
    "scheduler.admissionWebhook.reinvocationPolicy": "IfNeeded: asking twice changes nothing",
    "scheduler.admissionWebhook.failurePolicy": "Fail: only pods that ask for devices go there",
    "scheduler.patch": "the webhook keeps its certificate itself",
    "scheduler.service": "the extender is reached inside its pod only, the webhook by its Service",
    "devicePlugin.enabled": "label no node where no plugin is to run",
    "devicePlugin.gpuOperatorToolkitReady": "a container waits for its cards by itself",
    "devicePlugin.image": OURS,
    "devicePlugin.monitor": OWN,
    "devicePlugin.nodeConfiguration.externalConfigName": "name it hami-node-config",
    "devicePlugin.createRuntimeClass": "make the RuntimeClass in the overlay",
    "devicePlugin.migStrategy": "`migStrategy: mixed` in device-config.yaml offers instances made "
    "by hand",
    "devicePlugin.disablecorelimit": "without effect in HAMi, too; `disableCoreLimit` in "
    "device-config.yaml has one",
    "devicePlugin.passDeviceSpecsEnabled": "CDI brings the devices",
    "devicePlugin.deviceListStrategy": "CDI brings the devices",
    "devicePlugin.nvidiaHookPath": "the node's own CDI specification has it",
    "devicePlugin.nvidiaDriverRoot": "patch the volume `driver` in the overlay",
    "devicePlugin.gdrcopyEnabled": "the node's own CDI specification decides",
    "devicePlugin.gdsEnabled": "the node's own CDI specification decides",
    "devicePlugin.mofedEnabled": "the node's own CDI specification decides",
    "devicePlugin.extraArgs": OWN,
    "devicePlugin.extraEnvs": OWN,
    "devicePlugin.service": "each pod is scraped by itself",
    "devicePlugin.pluginPath": FIXED,
    "devicePlugin.libPath": FIXED,
    "devicePlugin.podAnnotations": OWN,
    "devicePlugin.hostPID": SAFE,
    "devicePlugin.hostNetwork": SAFE,
    "devicePlugin.securityContext": SAFE,
    "devicePlugin.tolerations": "the DaemonSets tolerate everything",
    "devicePlugin.updateStrategy": "the new plugin registers before the old one goes",
    "devicePlugin.resources": OWN,
    "mockDevicePlugin": "not part of this product",
    "devices": "these devices are not handled",
    "mluResource": "these devices are not handled",
    "dcuResource": "write the section `hygon:` into device-config.content",
    "metax": "these devices are not handled",
    "enflame": "these devices are not handled",
    "kunlun": "these devices are not handled",
    "vastai": "these devices are not handled",
    "biren": "these devices are not handled",
}
"""Value, or how the names of several begin -> why nothing is made of it."""


def reason(key: str) -> str:
    """Why nothing is made of a value; empty when the chart has no such value."""
    for start, why in DROPPED.items():
        plain = start in (
            "mluResource",
            "dcuResource",
            "metax",
            "enflame",
            "kunlun",
            "vastai",
            "biren",
        )
        if key == start or key.startswith(start if plain else f"{start}."):
            return why
    return ""


def rows() -> Iterator[tuple[str, str]]:
    """The table for people: value, what becomes of it."""
    for key, name in CONFIG.items():
        more = f"; feature `{FEATURES[key]}`" if key in FEATURES else ""
        yield key, f"`{name}` in `device-config.yaml`{more}"
    for key, variables in ENV.items():
        names = ", ".join(f"`{name}` of {workload}" for (workload, _), name in variables)
        yield key, names
    for key, feature in FEATURES.items():
        if key not in CONFIG:
            yield key, f"feature `{feature}`"
    yield from SPECIAL.items()
    for key, why in DROPPED.items():
        yield key, f"nothing: {why}"
