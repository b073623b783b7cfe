"""The dashboards of the whole cluster, of nodes, and of what is wasted."""

from deploy.dashboards.panels import (
    GRANTED,
    MEMORY,
    POD,
    Page,
    Panel,
    Variable,
    card,
    granted,
    ratio,
)

CLUSTER = Page(
    "hami-cluster",
    "HAMi / Cluster",
    "All cards: what there is, what is granted, what is used, and who waits.",
    (),
    (
        Panel("Cards", "short", ((f"count({card(MEMORY, '')})", "cards"),), "stat", width=4),
        Panel(
            "Tasks on cards",
            "short",
            ((f"sum({card('hami_gpu_shared_count', '')})", "tasks"),),
            "stat",
            width=4,
        ),
        Panel(
            "Memory granted",
            "percentunit",
            ((ratio(card(GRANTED, ""), card(MEMORY, "")), "granted"),),
            "stat",
            width=4,
        ),
        Panel(
            "Compute granted",
            "percentunit",
            (
                (
                    ratio(
                        card("hami_gpu_core_allocated_ratio", ""),
                        card("hami_gpu_core_limit_ratio", ""),
                    ),
                    "granted",
                ),
            ),
            "stat",
            width=4,
        ),
        Panel(
            "Pods that wait",
            "short",
            (("max(hami_extender_waiting_pods)", "waiting"),),
            "stat",
            "Device pods without a node. `kubectl describe pod` says why, `/explain` in full.",
            4,
        ),
        Panel(
            "Audit findings",
            "short",
            (("sum(hami_audit_finding_processes) or vector(0)", "processes"),),
            "stat",
            "Processes that use a card in a way that was not granted.",
            4,
        ),
        Panel(
            "Memory",
            "bytes",
            (
                (f"sum({card(MEMORY, '')})", "announced"),
                (f"sum({card(GRANTED, '')})", "granted"),
                (f"sum({card('hami_host_gpu_memory_used_bytes', '')})", "used"),
            ),
        ),
        Panel(
            "Busy cards by node",
            "percentunit",
            ((f"avg by (node) ({card('hami_host_gpu_busy_ratio', '')})", "{{node}}"),),
        ),
        Panel(
            "Memory granted by node",
            "percentunit",
            (
                (
                    f"sum by (node) ({card(GRANTED, '')}) / sum by (node) ({card(MEMORY, '')})",
                    "{{node}}",
                ),
            ),
            "bars",
        ),
        Panel(
            "Why nodes were refused",
            "short",
            (
                (
                    "sum by (reason) (max by (reason) (hami_extender_refused_nodes_total))",
                    "{{reason}}",
                ),
            ),
            "bars",
            "Nodes refused so far when no node fitted a pod, by reason word.",
        ),
        Panel(
            "Extender: time to answer, 99 of 100",
            "s",
            (
                (
                    (
                        "histogram_quantile(0.99, sum by (le, verb) "
                        "(rate(hami_extender_verb_duration_seconds_bucket[5m])))"
                    ),
                    "{{verb}}",
                ),
            ),
        ),
        Panel(
            "Quota used",
            "percentunit",
            (
                (
                    (
                        "max by (namespace, quota_name) (hami_resource_quota_used) / "
                        "max by (namespace, quota_name) (hami_resource_quota_limit > 0)"
                    ),
                    "{{namespace}} {{quota_name}}",
                ),
            ),
            "bars",
        ),
    ),
)

NODES = Page(
    "hami-node",
    "HAMi / Node",
    "The cards of a node.",
    (Variable("node", MEMORY, "node"),),
    (
        Panel("Memory granted", "bytes", ((card(GRANTED), "{{node}} {{device_uuid}}"),)),
        Panel(
            "Memory used",
            "bytes",
            ((card("hami_host_gpu_memory_used_bytes"), "{{node}} {{device_uuid}}"),),
        ),
        Panel(
            "Part of the memory granted",
            "percentunit",
            ((card("hami_node_gpu_memory_allocated_ratio"), "{{node}} {{device_uuid}}"),),
            "bars",
        ),
        Panel(
            "Compute granted",
            "percentunit",
            ((f"{card('hami_gpu_core_allocated_ratio')} / 100", "{{node}} {{device_uuid}}"),),
            "bars",
        ),
        Panel(
            "Busy",
            "percentunit",
            ((card("hami_host_gpu_busy_ratio"), "{{node}} {{device_uuid}}"),),
        ),
        Panel(
            "Tasks",
            "short",
            ((card("hami_gpu_shared_count"), "{{node}} {{device_uuid}}"),),
            "table",
        ),
    ),
)

_USED = f"sum by ({POD}) (hami_vgpu_memory_used_bytes)"
_LIMIT = f"sum by ({POD}) (hami_vgpu_memory_limit_bytes)"

WASTE = Page(
    "hami-waste",
    "HAMi / Who wastes what",
    "Granted and not used.",
    (),
    (
        Panel(
            "Memory granted and not used, by namespace",
            "bytes",
            ((f"sum by (namespace) (clamp_min({_LIMIT} - {_USED}, 0))", "{{namespace}}"),),
            "bars",
        ),
        Panel(
            "Compute granted and not used, by namespace (cards)",
            "short",
            (
                (
                    (
                        "sum by (namespace) (clamp_min(hami_vgpu_core_limit_ratio "
                        "- hami_container_device_busy_ratio, 0))"
                    ),
                    "{{namespace}}",
                ),
            ),
            "bars",
        ),
        Panel(
            "Pods with the most memory unused",
            "bytes",
            (
                (
                    f"topk(10, sum by (namespace, pod) (clamp_min({_LIMIT} - {_USED}, 0)))",
                    "{{namespace}}/{{pod}}",
                ),
            ),
            "table",
        ),
        Panel(
            "Idle longest",
            "s",
            (
                (
                    (
                        "topk(10, max by (namespace, pod) "
                        "(hami_container_last_kernel_elapsed_seconds))"
                    ),
                    "{{namespace}}/{{pod}}",
                ),
            ),
            "table",
            "Time since a container's last launch.",
        ),
        Panel(
            "Granted by the scheduler",
            "bytes",
            (
                (
                    f"sum by (namespace) ({granted('hami_vgpu_memory_allocated_bytes')})",
                    "{{namespace}}",
                ),
            ),
            width=24,
        ),
    ),
)
