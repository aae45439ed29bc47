"""Replicas: up, started, how large and how busy, and what Kubernetes says where it is asked."""

from typing import Final

from boards import kubernetes, states
from boards.board import board, row
from boards.panels import graph, stat, timeline
from boards.queries import NAMED, REPLICA, of, per_second

STARTED: Final = "process_start_time_seconds"
MEMORY: Final = "process_resident_memory_bytes"
LIMIT: Final = "credenza_memory_limit_bytes"

NOW: Final = row(
    "Now",
    states.replicas_up(4),
    stat(
        "Not reached",
        "Targets that do not answer Prometheus. A pod that has gone leaves the list within "
        "seconds, so that one which stays here is stuck.",
        "none",
        (f"count({of('up')}) - sum({of('up')})", ""),
        steps={0: "green", 1: "red"},
    ),
    states.versions(4),
    stat(
        "Last start",
        "Age of the youngest process. Seconds, again and again: one starts anew over and over.",
        "s",
        (f"time() - max({of(STARTED)})", ""),
    ),
    stat(
        "Starts in an hour",
        "How often processes have started anew at their address. A new pod has a new address and "
        "does not count; a container that ends does.",
        "none",
        (f"sum(changes({of(STARTED)}[1h]))", ""),
        steps={0: "green", 1: "orange", 3: "red"},
    ),
    stat(
        "Fullest memory",
        "The largest share of its memory limit that a replica uses. At 100 % the kernel ends it.",
        "percentunit",
        (f"max({of(MEMORY)} / {of(LIMIT)})", ""),
        steps={0: "green", 0.8: "orange", 0.9: "red"},
    ),
)

LIFE: Final = row(
    "Coming and going",
    timeline(
        "Up",
        "Whether Prometheus reaches each replica. Gaps are restarts, or a process too busy to "
        "answer.",
        (f"max by ({REPLICA}) ({of('up')})", NAMED),
        {"0": ("down", "red"), "1": ("up", "green")},
    ),
    graph(
        "Replicas by version",
        "During a roll-out one version goes down as the other comes up. Both for an hour: it has "
        "stopped halfway.",
        "none",
        (f"sum by (version) ({of('credenza_build_info')})", "{{version}}"),
        stacked=True,
    ),
    graph(
        "Replicas by node",
        "Where replicas run. All on one node: its loss is everybody's. Without a cluster there "
        "are no nodes.",
        "none",
        (f"sum by (node) ({of('up')})", "{{node}}"),
        stacked=True,
    ),
    graph(
        "Age of each process",
        "Seconds since it has started. A drop to zero is a start.",
        "s",
        (f"time() - max by ({REPLICA}) ({of(STARTED)})", NAMED),
    ),
    graph(
        "Starts within an hour",
        "How often the process at an address has started anew. More than two are an alert.",
        "none",
        (f"max by ({REPLICA}) (changes({of(STARTED)}[1h]))", NAMED),
        limit=2,
    ),
    graph(
        "Duration of a scrape",
        "How long a replica takes to answer Prometheus. Above a second it is starved of processor "
        "time.",
        "s",
        (f"max by ({REPLICA}) ({of('scrape_duration_seconds')})", NAMED),
    ),
)

WORK: Final = row(
    "Requests under way",
    graph(
        "Requests in flight",
        "Requests under way at the scrape. Near MAX_IN_FLIGHT (512) more are refused. A replica "
        "that drains goes down to zero before it ends.",
        "none",
        (f"sum by ({REPLICA}) ({of('credenza_requests_in_flight')})", NAMED),
    ),
    graph(
        "Requests by replica",
        "Whether the load is spread evenly. Clients that keep their connections stay with a "
        "replica.",
        "reqps",
        (per_second("http_requests_total", by=REPLICA), NAMED),
        stacked=True,
    ),
    graph(
        "Refused for overload by replica",
        "Requests answered 503 at once, by reason. requests: MAX_IN_FLIGHT was reached. exports: "
        "too many ran. groups: too many waited for the database. Above zero: add replicas, or "
        "find what is slow.",
        "reqps",
        (
            per_second("credenza_requests_refused_total", by=f"{REPLICA}, reason"),
            f"{{{{reason}}}} {NAMED}",
        ),
    ),
)

RESOURCES: Final = row(
    "Resources",
    graph(
        "Memory",
        "Resident memory of each replica, and the highest limit that one has. Of several "
        "workers (WORKERS) it is the sum.",
        "bytes",
        (f"max by ({REPLICA}) ({of(MEMORY)})", NAMED),
        (f"max({of(LIMIT)})", "limit"),
        colours={"limit": "red"},
    ),
    graph(
        "Processor time",
        "How much of a processor each replica uses. One process uses little more than one.",
        "percentunit",
        (per_second("process_cpu_seconds_total", by=REPLICA), NAMED),
    ),
    graph(
        "Open files",
        "Share of the file descriptors it may have that a replica uses: connections above all. Of "
        "several workers the fullest counts.",
        "percentunit",
        (
            f"max by ({REPLICA}) ({of('process_open_fds')} / {of('process_max_fds')})",
            NAMED,
        ),
        top=1,
    ),
    graph(
        "Traffic in bytes",
        "Bodies taken and sent each second. Of requests it is what was read, of answers what their "
        "Content-Length says: those without one (exports) do not count.",
        "Bps",
        (per_second("http_request_size_bytes_sum"), "taken"),
        (per_second("http_response_size_bytes_sum"), "sent"),
        width=12,
    ),
    graph(
        "Series of a scrape",
        "How many samples a replica shows. They are bounded, as labels are routes and closed "
        "lists: steady growth is a fault.",
        "none",
        (f"max by ({REPLICA}) ({of('scrape_samples_scraped')})", NAMED),
        width=12,
    ),
)

BOARD: Final = board(
    "pods",
    "Credenza pods",
    "Which replicas are there, since when and in which version, what they have under way, and how "
    "much memory and processor time they use: that is what the processes say of themselves. The "
    "last row is what Kubernetes says of all that runs in the namespace. It needs the components "
    "cluster-metrics (replicas wanted, pods, restarts, autoscaler, backups, certificates) and "
    "kubelet-metrics (volumes), and is empty without them.",
    *(NOW, LIFE, WORK, RESOURCES, kubernetes.KUBERNETES),
)
