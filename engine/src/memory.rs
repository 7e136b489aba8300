//! How much memory there is, for refusing what will not fit before it is allocated.

/// Bytes, for messages: `812 MiB`, `6.4 GiB`.
pub fn bytes_text(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        ..9.95 => format!("{mib:.1} MiB"),
        ..1024.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can be allocated now without paging; file pages that can be dropped count.
    pub available: u64,
    /// Bytes there are at all.
    pub total: u64,
}

/// The machine's memory, or the control group's where that is less; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub fn memory() -> Option<Memory> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = parse_meminfo(&read("/proc/meminfo")?)?;
    Some(match cgroup(&read("/proc/self/cgroup").unwrap_or_default(), read) {
        Some(group) => Memory {
            available: machine.available.min(group.available),
            total: machine.total.min(group.total),
        },
        None => machine,
    })
}

/// The machine's memory, or the control group's where that is less; `None` where the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn memory() -> Option<Memory> {
    None
}

#[cfg(any(target_os = "linux", test))]
fn parse_meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { available: field("MemAvailable")?, total: field("MemTotal")? })
}

/// The tightest limit of the process's control group and those above it. Version 2 has one line, `0::/path`;
/// version 1 has a line for each controller, `4:memory:/path`.
#[cfg(any(target_os = "linux", test))]
fn cgroup(membership: &str, read: impl Fn(&str) -> Option<String>) -> Option<Memory> {
    let number = |path: String| read(&path)?.trim().parse::<u64>().ok();
    let mut tightest: Option<Memory> = None;
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, limit, usage, droppable) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
            _ if controllers.split(',').any(|c| c == "memory") => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            let folder = format!("{root}{path}");
            if let Some(total) = number(format!("{folder}/{limit}")) {
                let stat = read(&format!("{folder}/memory.stat")).unwrap_or_default();
                let file = stat.lines().find_map(|l| l.strip_prefix(droppable)?.trim().parse::<u64>().ok());
                let used = number(format!("{folder}/{usage}")).unwrap_or(0).saturating_sub(file.unwrap_or(0));
                let here = Memory { available: total.saturating_sub(used), total };
                tightest = Some(tightest.map_or(here, |t| Memory {
                    available: t.available.min(here.available),
                    total: t.total.min(here.total),
                }));
            }
            match path.rfind('/') {
                Some(parent) => path = &path[..parent],
                None => break,
            }
        }
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo() {
        let text = "MemTotal:       24689004 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(parse_meminfo(text), Some(Memory { available: 20_480_000_000, total: 25_281_540_096 }));
        assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let files = |path: &str| {
            let text = match path {
                "/sys/fs/cgroup/a/b/memory.max" => "max",
                "/sys/fs/cgroup/a/memory.max" => "1000\n",
                "/sys/fs/cgroup/a/memory.current" => "700\n",
                "/sys/fs/cgroup/a/memory.stat" => "anon 400\ninactive_file 300\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(cgroup("0::/a/b\n", files), Some(Memory { available: 600, total: 1000 }));
        assert_eq!(cgroup("0::/other\n", files), None);
        assert_eq!(cgroup("3:cpu,cpuacct:/a\n", files), None);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes_text(3 << 19), "1.5 MiB");
        assert_eq!(bytes_text(812 << 20), "812 MiB");
        assert_eq!(bytes_text(6554 << 20), "6.4 GiB");
    }
}
