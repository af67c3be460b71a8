"""What the kernel and its cgroup tree do to removed cgroups."""

from __future__ import annotations

from ...kernel.pins import KERNEL_MEMORY_LETS_GO
from .finding import Finding, State
from .readings import Readings

MANY_DYING = 2000


def self_healing(readings: Readings) -> Finding:
    release = readings.release
    why = "A removed cgroup's memcg stays in the kernel, dying, for as long as page cache is charged to it."
    match readings.leaks:
        case False if readings.hierarchy is not None:
            return Finding(
                check="self-healing",
                state=State.OK,
                finding=f"Linux {release} moves page cache to the parent when a cgroup is removed.",
                why="Dying memcgs go by themselves within about a minute; the guard only counts them.",
            )
        case None:
            return Finding(
                check="self-healing",
                state=State.NOTE,
                finding=f"Whether Linux {release} heals itself cannot be read without root.",
                why=why,
                command="sudo logindguardctl doctor",
            )
    return Finding(
        check="self-healing",
        state=State.NOTE,
        finding=f"Linux {release} does not heal itself: sessions and jobs leave dying memcgs behind.",
        why=why,
        command="run a kernel of 7.1 or later, or keep the guard running",
    )


def kernel_age(readings: Readings) -> Finding:
    if readings.version < KERNEL_MEMORY_LETS_GO:
        return Finding(
            check="kernel",
            state=State.WARN,
            finding=f"Linux {readings.release} is older than 5.9: slab objects pin dying memcgs too.",
            why="Such memcgs are pinned by kernel memory, which no reclaim of page cache releases.",
            command="install a kernel of 5.19 or later",
        )
    return Finding(
        check="kernel",
        state=State.OK,
        finding=f"Linux {readings.release} does not let slab objects pin dying memcgs.",
        why="Kernels before 5.9 do, and no reclaim of page cache helps there.",
    )


def kernel_memory(readings: Readings) -> Finding:
    """cgroup.memory=nokmem: what it does and does not do."""
    set_ = any(
        "nokmem" in word.removeprefix("cgroup.memory=").split(",")
        for word in readings.command_line
        if word.startswith("cgroup.memory=")
    )
    old = readings.version < KERNEL_MEMORY_LETS_GO
    match set_, old:
        case True, True:
            state, finding = State.OK, "Kernel memory is not accounted (cgroup.memory=nokmem)."
            why = "That keeps slab from pinning dying memcgs on this kernel. Page cache still does."
            command = ""
        case True, False:
            state = State.NOTE
            finding = "Kernel memory is not accounted (cgroup.memory=nokmem), which gains nothing here."
            why = (
                "It never stopped page cache from pinning dying memcgs; slab does not pin them since 5.9. "
                "Limits of memory miss what the kernel holds for a cgroup."
            )
            command = (
                "take cgroup.memory=nokmem off GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
            )
        case False, True:
            state = State.WARN
            finding = "Kernel memory is accounted, and pins dying memcgs on a kernel as old as this."
            why = "cgroup.memory=nokmem stops that, and only that: page cache pins them all the same."
            command = (
                "put cgroup.memory=nokmem into GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
            )
        case _:
            state, finding = State.OK, "Kernel memory is accounted, and does not pin dying memcgs here."
            why = "cgroup.memory=nokmem would gain nothing: it never stopped page cache from pinning them."
            command = ""
    return Finding(check="nokmem", state=state, finding=finding, why=why, command=command)


def cgroup_version(readings: Readings) -> Finding:
    hierarchy, features = readings.hierarchy, readings.features
    if hierarchy is None:
        off = "cgroup_disable=memory" in readings.command_line
        return Finding(
            check="cgroup",
            state=State.NOTE,
            finding="No cgroup hierarchy has the memory controller.",
            why="Without memory cgroups none can be left behind; the guard does not start.",
            command="take cgroup_disable=memory off the kernel command line" if off else "",
        )
    if hierarchy.version == 1:
        return Finding(
            check="cgroup",
            state=State.WARN,
            finding="The memory controller is on cgroup v1.",
            why="Nothing there can shield live cgroups from a reclaim beside them, so less can be reclaimed.",
            command="put systemd.unified_cgroup_hierarchy=1 on the kernel command line; reboot",
        )
    if features is not None and not features.memory_reclaim:
        return Finding(
            check="cgroup",
            state=State.WARN,
            finding="cgroup v2, but this kernel has no memory.reclaim.",
            why="It came with 5.19. Without it dying memcgs can be counted, not released.",
            command="install a kernel of 5.19 or later (Debian: from backports)",
        )
    return Finding(
        check="cgroup",
        state=State.OK,
        finding="cgroup v2 with memory.reclaim.",
        why="What dying memcgs hold can be reclaimed while every live cgroup is shielded.",
    )


def mount_options(readings: Readings) -> Finding | None:
    hierarchy = readings.hierarchy
    if hierarchy is None or hierarchy.version == 1:
        return None
    if "memory_recursiveprot" in hierarchy.options:
        return Finding(
            check="mount",
            state=State.OK,
            finding=f"{hierarchy.mount} is mounted with memory_recursiveprot.",
            why="One raised memory.min shields all that is below it.",
        )
    return Finding(
        check="mount",
        state=State.NOTE,
        finding=f"{hierarchy.mount} is mounted without memory_recursiveprot.",
        why="Every live cgroup needs a shield of its own then, which makes each reclaim dearer.",
        command=f"mount -o remount,memory_recursiveprot {hierarchy.mount}",
    )


def memory_accounting(readings: Readings) -> Finding | None:
    if readings.sessions_have_memcgs is None:
        return None
    if readings.sessions_have_memcgs:
        return Finding(
            check="accounting",
            state=State.OK,
            finding="Sessions have memory cgroups of their own.",
            why="It is these that are left behind; without memory accounting there would be none to release.",
        )
    return Finding(
        check="accounting",
        state=State.NOTE,
        finding="Sessions have no memory cgroups: memory accounting is off below user.slice.",
        why="Logins leave no dying memcgs then; nothing needs to be changed.",
        command="DefaultMemoryAccounting=yes in /etc/systemd/system.conf turns it on",
    )


def pressure(readings: Readings) -> Finding:
    if readings.pressure:
        return Finding(
            check="pressure",
            state=State.OK,
            finding="The kernel measures memory pressure (PSI).",
            why="The sweep pauses while programs wait for memory.",
        )
    return Finding(
        check="pressure",
        state=State.NOTE,
        finding="The kernel does not measure memory pressure (PSI).",
        why="The sweep cannot pause for it; only free memory and limits hold it back.",
        command="put psi=1 on the kernel command line; reboot",
    )


def dying(readings: Readings) -> Finding | None:
    if readings.dying is None:
        return None
    count = readings.dying
    why = "Each costs kernel memory, some 20K on a small host, and makes every pass over all memcgs longer."
    if count < MANY_DYING:
        return Finding(check="dying", state=State.OK, finding=f"{count} memcgs are dying now.", why=why)
    return Finding(
        check="dying",
        state=State.WARN,
        finding=f"{count} memcgs are dying now.",
        why=why,
        command="logindguardctl sweep --wait" if readings.service else "logindguardctl list",
    )
