"""Who tells us that a session, a job or a slice is going: logind, systemd, the cgroup tree."""
