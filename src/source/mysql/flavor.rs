//! Which server this is: MySQL and MariaDB differ in GTIDs, status statements, privileges and snapshots.

/// Told by `select version()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    MySql,
    MariaDb,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flavor {
    pub vendor: Vendor,
    pub version: (u32, u32, u32),
}

impl Flavor {
    /// `10.11.19-MariaDB-0+deb12u1-log`, `9.7.4-2`, `5.5.5-10.11.2-MariaDB` (as replicas see it).
    pub fn parse(version: &str) -> Self {
        let vendor = if version.to_ascii_lowercase().contains("mariadb") { Vendor::MariaDb } else { Vendor::MySql };
        let digits = match vendor {
            Vendor::MariaDb => version.strip_prefix("5.5.5-").unwrap_or(version),
            Vendor::MySql => version,
        };
        let mut numbers = digits.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { vendor, version: (next(), next(), next()) }
    }

    pub fn is_mariadb(&self) -> bool {
        self.vendor == Vendor::MariaDb
    }

    /// `SHOW MASTER STATUS` is gone since MySQL 8.4, its successor came with 8.2.
    pub fn binlog_status_statement(&self) -> &'static str {
        match self.vendor {
            Vendor::MySql if self.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        }
    }

    /// The privilege that shows the binlog's state.
    pub fn monitor_privilege(&self) -> &'static str {
        match self.vendor {
            Vendor::MariaDb if self.version >= (10, 5, 2) => "BINLOG MONITOR",
            _ => "REPLICATION CLIENT",
        }
    }

    /// MySQL 9.6 and later let the SQL layer do foreign-key actions, so that they are in the binlog.
    pub fn logs_cascades(&self) -> bool {
        self.vendor == Vendor::MySql && self.version >= (9, 6, 0)
    }
}

impl std::fmt::Display for Flavor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.vendor {
            Vendor::MySql => "MySQL",
            Vendor::MariaDb => "MariaDB",
        };
        let (major, minor, patch) = self.version;
        write!(f, "{name} {major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_the_server() {
        for (version, name) in [
            ("10.11.19-MariaDB-0+deb12u1-log", "MariaDB 10.11.19"),
            ("5.5.5-10.4.2-MariaDB", "MariaDB 10.4.2"),
            ("9.7.4-2", "MySQL 9.7.4"),
            ("8.0.36", "MySQL 8.0.36"),
            ("", "MySQL 0.0.0"),
        ] {
            assert_eq!(Flavor::parse(version).to_string(), name);
        }
        assert_eq!(Flavor::parse("8.4.0").binlog_status_statement(), "SHOW BINARY LOG STATUS");
        assert_eq!(Flavor::parse("8.0.36").binlog_status_statement(), "SHOW MASTER STATUS");
    }
}
