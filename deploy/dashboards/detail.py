"""The dashboards of single cards and pods."""

from deploy.dashboards.panels import GRANTED, MEMORY, Page, Panel, Variable, card

NAMESPACE = Variable("namespace", "hami_vgpu_memory_limit_bytes", "namespace")
_CHOSEN = 'namespace=~"$namespace", pod=~"$pod"'

CARDS = Page(
    "hami-card",
    "HAMi / Card",
    "One card: who is on it, with what, and doing what.",
    (Variable("card", MEMORY, "device_uuid"),),
    (
        Panel(
            "Memory",
            "bytes",
            (
                (card(MEMORY, 'device_uuid=~"$card"'), "announced"),
                (card(GRANTED, 'device_uuid=~"$card"'), "granted"),
                (card("hami_host_gpu_memory_used_bytes", 'device_uuid=~"$card"'), "used"),
            ),
        ),
        Panel(
            "Memory by container",
            "bytes",
            (
                (
                    'hami_vgpu_memory_used_bytes{device_uuid=~"$card"}',
                    "{{namespace}}/{{pod}} {{container}}",
                ),
            ),
        ),
        Panel(
            "Limits",
            "bytes",
            (
                (
                    'hami_vgpu_memory_limit_bytes{device_uuid=~"$card"}',
                    "{{namespace}}/{{pod}} {{container}}",
                ),
            ),
            "table",
        ),
        Panel(
            "Compute by container",
            "percentunit",
            (
                (
                    'hami_container_device_busy_ratio{device_uuid=~"$card"}',
                    "{{namespace}}/{{pod}} {{container}}",
                ),
            ),
        ),
        Panel(
            "MIG instances",
            "short",
            (
                (
                    'hami_mig_device_info{device_uuid=~"$card"}',
                    "{{profile}} {{namespace}}/{{pod}} {{container}}",
                ),
            ),
            "table",
        ),
    ),
)

PODS = Page(
    "hami-pod",
    "HAMi / Pod",
    "What a pod was granted, what it uses, and what it was refused.",
    (NAMESPACE, Variable("pod", 'hami_vgpu_memory_limit_bytes{namespace=~"$namespace"}', "pod")),
    (
        Panel(
            "Memory",
            "bytes",
            tuple(
                (
                    f"hami_vgpu_memory_{what}_bytes{{{_CHOSEN}}}",
                    f"{{{{pod}}}} {{{{container}}}} {word}",
                )
                for what, word in (("limit", "limit"), ("used", "used"), ("peak", "highest"))
            ),
        ),
        Panel(
            "Memory by kind",
            "bytes",
            tuple(
                (
                    f"hami_vgpu_memory_{what}_bytes{{{_CHOSEN}}}",
                    f"{{{{pod}}}} {{{{container}}}} {what}",
                )
                for what in ("context", "module", "buffer")
            ),
        ),
        Panel(
            "Compute",
            "percentunit",
            (
                (f"hami_vgpu_core_limit_ratio{{{_CHOSEN}}}", "{{pod}} {{container}} limit"),
                (f"hami_container_device_busy_ratio{{{_CHOSEN}}}", "{{pod}} {{container}} used"),
            ),
        ),
        Panel(
            "Allocations refused",
            "short",
            ((f"hami_vgpu_refused_allocations_total{{{_CHOSEN}}}", "{{pod}} {{container}}"),),
            "bars",
        ),
        Panel(
            "Held back",
            "short",
            ((f"hami_container_blocked{{{_CHOSEN}}}", "{{pod}} {{container}}"),),
            text="1 while work of a higher priority computes on the same card.",
        ),
        Panel(
            "Priority",
            "short",
            ((f"hami_container_priority{{{_CHOSEN}}}", "{{pod}} {{container}}"),),
            "table",
            "0 is the highest.",
        ),
    ),
)
