"""Every string that crosses a process: annotations, labels, variables, paths, ports.

Formats and meanings are stated in docs/contract.md; HAMi v2.10's names are spelled as there.
"""

from typing import Final

# Resource names are configurable (device-config.yaml); these are HAMi's defaults.
RESOURCE_COUNT: Final = "nvidia.com/gpu"
RESOURCE_MIG_PREFIX: Final = "nvidia.com/mig-"
RESOURCE_MEMORY: Final = "nvidia.com/gpumem"
RESOURCE_MEMORY_PERCENTAGE: Final = "nvidia.com/gpumem-percentage"
RESOURCE_CORES: Final = "nvidia.com/gpucores"
RESOURCE_PRIORITY: Final = "nvidia.com/priority"

# Node annotations.
NODE_REGISTER: Final = "hami.io/node-nvidia-register"
NODE_LOCK: Final = "hami.io/mutex.lock"
NODE_SCORE: Final = "hami.io/node-nvidia-score"
NODE_CORDON: Final = "hami.io/device-cordon"
NODE_PAIR_SCORES: Final = "hami.io/node-nvidia-score"
"""How well each pair of cards is connected, for the policy topology-aware."""
NODE_BINDING: Final = "hami.io/node-nvidia-binding"
"""Ours: `late` or `lock`, the protocol of the node's plugin; absent means HAMi's lock."""
NODE_BINDING_REASON: Final = "hami.io/node-nvidia-binding-reason"
"""Ours: why the node does not offer late binding; absent when it does."""
NODE_CARD_ACCESS: Final = "hami.io/node-nvidia-card-access"
"""Ours: how containers of the node come to their cards."""
CARDS_BY_CDI: Final = "cdi"
CARDS_BY_RUNTIME: Final = "runtime"
CARDS_BY_LIST: Final = "list"
BINDING_LATE: Final = "late"
BINDING_LOCK: Final = "lock"
NODE_PAUSED: Final = "hami.io/node-paused"
"""Ours: a reason; while present nothing is bound to the node (planned plugin upgrade)."""
NODE_MIG_JOURNAL: Final = "hami.io/mig-journal"
"""Ours: the MIG instances that mig-manager made or is about to make; only these it may destroy."""
NODE_MIG_BLOCKED: Final = "hami.io/mig-blocked"
"""Ours: MIG placements where nothing can be made, each with its reason."""
NODE_MIG_SWITCH: Final = "hami.io/mig-switch"
"""Ours: the card whose mode is being changed, from the first step to the last."""
NODE_MIG_AUTO: Final = "hami.io/mig-auto"
"""Ours: the modes of cards that were chosen automatically, each with its time and its pod."""
NODE_MIG_PAUSE: Final = "hami.io/mig-pause"
"""Ours: `card` and `token`; while present no program but mig-manager may have NVML open."""
NODE_MIG_PAUSE_PLUGIN: Final = "hami.io/mig-pause-plugin"
NODE_MIG_PAUSE_MONITOR: Final = "hami.io/mig-pause-monitor"
"""The token of the pause: this program has let go of NVML."""

# Pod annotations written together with the Binding.
POD_NODE: Final = "hami.io/vgpu-node"
POD_TIME: Final = "hami.io/vgpu-time"
POD_DEVICES_TO_ALLOCATE: Final = "hami.io/vgpu-devices-to-allocate"
POD_DEVICES_ALLOCATED: Final = "hami.io/vgpu-devices-allocated"
POD_BIND_PHASE: Final = "hami.io/bind-phase"
POD_BIND_TIME: Final = "hami.io/bind-time"
BIND_ALLOCATING: Final = "allocating"
BIND_SUCCESS: Final = "success"
BIND_FAILED: Final = "failed"
POD_MIG_ALLOCATIONS: Final = "hami.io/vgpu-mig-allocations"

GRANT_ANNOTATIONS: Final = (
    POD_NODE,
    POD_TIME,
    POD_DEVICES_TO_ALLOCATE,
    POD_DEVICES_ALLOCATED,
    POD_BIND_PHASE,
    POD_BIND_TIME,
    POD_MIG_ALLOCATIONS,
)
"""What only our service accounts may write on a pod."""

# Pod annotations that users set.
POD_NODE_POLICY: Final = "hami.io/node-scheduler-policy"
POD_GPU_POLICY: Final = "hami.io/gpu-scheduler-policy"
POD_USE_TYPE: Final = "nvidia.com/use-gputype"
POD_NOUSE_TYPE: Final = "nvidia.com/nouse-gputype"
POD_USE_UUID: Final = "nvidia.com/use-gpuuuid"
POD_NOUSE_UUID: Final = "nvidia.com/nouse-gpuuuid"
POD_VGPU_MODE: Final = "nvidia.com/vgpu-mode"
POD_NUMA_BIND: Final = "nvidia.com/numa-bind"
POD_SCORING_WEIGHTS: Final = "hami.io/device-scoring-weights"
POD_PREDICATE_TIME: Final = "predicate-time"
"""When an Ascend pod was placed, in Unix seconds."""

# Labels.
LABEL_DEVICE_POD: Final = "hami.io/device-pod"
"""Ours: set by the webhook on every pod that asks for a device; informers select by it."""
LABEL_DEVICE_POD_VALUE: Final = "true"
LABEL_WEBHOOK: Final = "hami.io/webhook"
LABEL_WEBHOOK_IGNORE: Final = "ignore"

SCHEDULER_NAME: Final = "hami-scheduler"
NAMESPACE: Final = "hami-system"
VENDOR_NVIDIA: Final = "NVIDIA"
MODE_HAMI_CORE: Final = "hami-core"
MODE_MIG: Final = "mig"
MODE_AUTO: Final = "auto"
"""Of a node in config.json: each card's mode is chosen by what pods wait for."""
LEASE_MIG_AUTO: Final = "hami-mig-auto"
"""Whose holder alone may begin an automatic change of mode."""

# Variables inside a container.
ENV_VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
ENV_ASCEND_VISIBLE_DEVICES: Final = "ASCEND_VISIBLE_DEVICES"
ENV_MEMORY_LIMIT: Final = "CUDA_DEVICE_MEMORY_LIMIT"
"""Followed by `_<i>`, the position of the card in the container; value `<MiB>m`."""
ENV_SM_LIMIT: Final = "CUDA_DEVICE_SM_LIMIT"
ENV_SHARED_CACHE: Final = "CUDA_DEVICE_MEMORY_SHARED_CACHE"
ENV_TASK_PRIORITY: Final = "CUDA_TASK_PRIORITY"
ENV_CORE_POLICY: Final = "GPU_CORE_UTILIZATION_POLICY"
ENV_DISABLE_CONTROL: Final = "CUDA_DISABLE_CONTROL"
VISIBLE_VOID: Final = "void"
VISIBLE_NONE: Final = "none"

# Variables of our own processes.
ENV_NODE_NAME: Final = "NODE_NAME"
ENV_HOOK_PATH: Final = "HOOK_PATH"
ENV_DRIVER_ROOT: Final = "DRIVER_ROOT"

# Paths on a node.
HOOK_PATH: Final = "/usr/local"
DRIVER_ROOT: Final = "/run/nvidia/driver"
CDI_DIRS: Final = ("/etc/cdi", "/var/run/cdi")
CDI_DYNAMIC_DIR: Final = "/var/run/cdi"
CDI_KIND: Final = "hami.io/vgpu"
CDI_KIND_NVIDIA: Final = "nvidia.com/gpu"
CDI_FILE_PREFIX: Final = "hami.io-vgpu_"
CDI_KIND_MIG: Final = "hami.io/mig"
CDI_FILE_MIG: Final = "hami.io-mig.json"
CDI_ANNOTATION_PREFIX: Final = "cdi.k8s.io/"
CDI_ANNOTATION: Final = "nvidia-device-plugin_"
"""With a prefix before it and a random UUID behind it, the key of an annotation of kubelet's answer
that names CDI devices."""
LIB_NAME: Final = "libvgpu.so"
PRELOAD_NAME: Final = "ld.so.preload"
CURRENT_NAME: Final = "current"
CONTAINERS_NAME: Final = "containers"
CONTROL_NAME: Final = "control"
USAGE_NAME: Final = "usage"
CONTROL_GROUP: Final = 65532
"""Group of the control files: the monitor's, which writes who has to wait."""

# Paths inside a container.
CONTAINER_VGPU_DIR: Final = "/usr/local/vgpu"
CONTAINER_LIB: Final = "/usr/local/vgpu/libvgpu.so"
CONTAINER_CONTROL: Final = "/usr/local/vgpu/control"
CONTAINER_USAGE: Final = "/usr/local/vgpu/usage"
CONTAINER_PRELOAD: Final = "/etc/ld.so.preload"

# Ports.
PORT_WEBHOOK: Final = 9443
PORT_WEBHOOK_STATUS: Final = 9396
PORT_EXTENDER: Final = 9380
"""Filter, prioritize and bind; on 127.0.0.1 of the scheduler pod only."""
PORT_EXTENDER_EXPLAIN: Final = 9381
"""/explain, /simulate and /state; on 127.0.0.1 of the scheduler pod only."""
PORT_EXTENDER_METRICS: Final = 9395
PORT_MONITOR_METRICS: Final = 9394
PORT_PLUGIN_STATUS: Final = 9397
PORT_MIG_MANAGER_STATUS: Final = 9398
