"""Memory, cores, descriptors and workers of each replica."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panel import Panel, of, total

RESOURCES: Final = (
    Panel(
        "Memory",
        "percentunit",
        "Share of the container's limit. Above 90 %: KronosMemoryHigh.",
        {"{{instance}}": f"{of('kronos_memory_used_bytes')} / {of('kronos_memory_limit_bytes')}"},
        limit=0.9,
    ),
    Panel(
        "Memory of the workers",
        "bytes",
        "Resident memory, in which shared pages count once for each worker.",
        {"{{instance}}": of("kronos_process_resident_memory_bytes")},
    ),
    Panel(
        "CPU",
        "none",
        "Cores in use; KRONOS_CPU_LIMIT is the limit.",
        {"{{instance}}": total("kronos_process_cpu_seconds_total", "instance")},
    ),
    Panel(
        "Workers",
        "none",
        "Processes that serve or load the model.",
        {"{{instance}}": of("kronos_workers")},
    ),
    Panel(
        "Workers that died",
        "none",
        "In ten minutes: KronosWorkerDied.",
        {"{{instance}}": f"increase({of('kronos_worker_deaths_total')}[10m])"},
    ),
    Panel(
        "Age of the youngest worker",
        "s",
        "It falls to zero at each start.",
        {"{{instance}}": f"time() - {of('kronos_process_start_time_seconds')}"},
    ),
    Panel(
        "File descriptors",
        "percentunit",
        "Of the worker that has most open. Above 80 %: KronosFileDescriptorsHigh.",
        {"{{instance}}": f"{of('kronos_process_open_fds')} / {of('kronos_process_max_fds')}"},
        limit=0.8,
    ),
    Panel(
        "Connections",
        "none",
        "Open connections.",
        {"{{instance}}": of("kronos_connections")},
    ),
    Panel(
        "Threads",
        "none",
        "Of all workers.",
        {"{{instance}}": of("kronos_process_threads")},
    ),
    Panel(
        "Free space for metrics",
        "percentunit",
        "Of the file system of the metrics directory. Below 20 %: KronosMetricsDirectoryFull.",
        {
            "{{instance}}": f"{of('kronos_metrics_file_system_free_bytes')}"
            f" / {of('kronos_metrics_file_system_bytes')}"
        },
    ),
    Panel(
        "Log lines lost",
        "ops",
        "Lines a second that the reader of stdout did not take: KronosLogLinesLost.",
        {"{{instance}}": total("kronos_log_lines_dropped_total", "instance")},
    ),
)
