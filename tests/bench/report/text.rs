//! The report as text: tables that a page of Markdown takes as they are.

use std::fmt;

use super::{Conditions, Row, Summary, Table};
use crate::load::Load;

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conditions.fmt(f)?;
        for table in &self.loads {
            table.fmt(f)?;
        }
        self.ratios(f)?;
        self.once(f)?;
        self.growth(f)?;
        self.slow(f)?;
        self.hosts(f)?;
        self.instructions(f)?;
        self.warnings(f)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.label.is_empty() { String::new() } else { format!(", {}", self.label) };
        writeln!(f, "{}{label}; {} x {}, Linux {}", self.ended_at, self.cpus, self.cpu, self.kernel)?;
        writeln!(
            f,
            "{} rounds of {} s for each load, {} keep-alive connections, bodies of {} MiB; {:.1} minutes",
            self.rounds, self.seconds_per_load, self.connections, self.bulk_mib, self.minutes
        )
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}\n", self.load.name(), self.what)?;
        if self.load.is_bulk() {
            writeln!(f, "| pair            |  GiB/s | CPU s/GiB |")?;
            writeln!(f, "|-----------------|-------:|----------:|")?;
            for Row { name, rate, cpu, .. } in &self.rows {
                writeln!(f, "| {name:15} | {:>6} | {:>9} |", number(*rate, 2), number(*cpu, 2))?;
            }
            return Ok(());
        }
        writeln!(f, "| pair            | requests/s | CPU us/r | p50 us | added p50 | p99 us |")?;
        writeln!(f, "|-----------------|-----------:|---------:|-------:|----------:|-------:|")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {:15} | {:>10} | {:>8} | {:>6} | {:>9} | {:>6} |",
                row.name,
                number(row.rate, 0),
                number(row.cpu, 1),
                number(row.p50_us, 0),
                number(row.added_p50_us, 0),
                number(row.p99_us, 0)
            )?;
        }
        Ok(())
    }
}

impl Summary<'_> {
    fn ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ratios.is_empty() {
            return Ok(());
        }
        let loads: Vec<Load> = self.loads.iter().map(|table| table.load).collect();
        writeln!(f, "\nCPU time, ratios: medians within rounds\n")?;
        write!(f, "| {:26} |", "")?;
        for load in &loads {
            write!(f, " {:>11} |", load.name())?;
        }
        write!(f, "\n|{:-<28}|", "")?;
        for _ in &loads {
            write!(f, "{:->12}:|", "")?;
        }
        writeln!(f)?;
        for ratio in &self.ratios {
            write!(f, "| {:26} |", format!("{} / {}", ratio.of, ratio.to))?;
            for load in &loads {
                write!(f, " {:>11} |", number(ratio.cpu.get(load).copied(), 2))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn once(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.once.first() else { return Ok(()) };
        let counts: Vec<usize> = first.rss_kib_per_connection.iter().map(|(count, _)| *count).collect();
        writeln!(
            f,
            "\nStart, system calls of keep-alive, resident memory: the client's half + the server's\n"
        )?;
        write!(f, "| {:15} | ready ms | sysc./r |    MiB idle |", "pair")?;
        for count in &counts {
            write!(f, " {:>17} |", format!("KiB/conn at {count}"))?;
        }
        write!(f, "\n|{:-<17}|---------:|--------:|------------:|", "")?;
        for _ in &counts {
            write!(f, "{:->18}:|", "")?;
        }
        writeln!(f)?;
        for row in &self.once {
            let (start, calls) = (number(row.start_ms, 0), number(row.system_calls_per_request, 2));
            let idle = row.rss_idle_kib.iter().flatten().map(|kib| *kib as f64 / 1024.0);
            write!(f, "| {:15} | {start:>8} | {calls:>7} | {:>11} |", row.name, halves(idle))?;
            for (_, kib) in &row.rss_kib_per_connection {
                write!(f, " {:>17} |", halves(kib.iter().copied()))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.growth.is_empty() {
            return Ok(());
        }
        writeln!(f, "\ngrowth: the keep-alive load, on the product with one thing changed\n")?;
        writeln!(f, "| selvedge-h1 with      | requests/s | CPU us/r | ratio, with its error |")?;
        writeln!(f, "|-----------------------|-----------:|---------:|----------------------:|")?;
        for growth in &self.growth {
            let (rate, cpu) = (number(growth.row.rate, 0), number(growth.row.cpu, 1));
            let ratio = format!("{} ± {}", number(growth.ratio, 2), number(growth.error, 2));
            writeln!(f, "| {:21} | {rate:>10} | {cpu:>8} | {ratio:>21} |", growth.name)?;
        }
        Ok(())
    }

    fn slow(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.slow.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nslow: 1,000 requests per second, to ten endpoints of which one takes 20 ms for an answer\n"
        )?;
        writeln!(f, "| selvedge-h1 with      | p50 us | p99 us |")?;
        writeln!(f, "|-----------------------|-------:|-------:|")?;
        for row in &self.slow {
            let (p50, p99) = (number(row.p50_us, 0), number(row.p99_us, 0));
            writeln!(f, "| {:21} | {p50:>6} | {p99:>6} |", row.name)?;
        }
        Ok(())
    }

    fn hosts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.hosts.first() else { return Ok(()) };
        writeln!(f, "\nhosts: {} of them, each with a certificate of its own\n", first.hosts)?;
        writeln!(
            f,
            "| edge            | start ms | new certificate ms |   MiB | MiB, all used | control plane MiB |"
        )?;
        writeln!(
            f,
            "|-----------------|---------:|-------------------:|------:|--------------:|------------------:|"
        )?;
        for taken in self.hosts {
            let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
            let (median, longest) = taken.renewal_ms;
            writeln!(
                f,
                "| {:15} | {:>8.0} | {:>18} | {:>5} | {:>13} | {:>17} |",
                taken.name,
                taken.start_ms,
                format!("{median:.0}, at most {longest:.0}"),
                mib(taken.kib),
                mib(taken.kib_used),
                taken.control_plane_kib.map_or_else(|| "-".into(), mib)
            )?;
        }
        Ok(())
    }

    fn instructions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.instructions.is_empty() {
            return Ok(());
        }
        writeln!(f, "\ninstructions: in user space, for a request of the keep-alive load, by callgrind\n")?;
        writeln!(f, "|                       | the client's half + the server's | ratio |")?;
        writeln!(f, "|-----------------------|---------------------------------:|------:|")?;
        for counted in self.instructions {
            let proxies: Vec<String> = counted.proxies.iter().map(|count| format!("{count:.0}")).collect();
            let ratio = number(counted.ratio(self.instructions), 3);
            writeln!(f, "| {:21} | {:>32} | {ratio:>5} |", counted.name, proxies.join(" + "))?;
        }
        Ok(())
    }

    fn warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for skipped in self.skipped {
            writeln!(f, "not measured: {} ({})", skipped.name, skipped.why)?;
        }
        let growth = self.growth.iter().map(|growth| ("growth", &growth.row));
        let slow = self.slow.iter().map(|row| ("slow", row));
        let rows = self.loads.iter().flat_map(|table| table.rows.iter().map(|row| (table.load.name(), row)));
        let mut elsewhere: f64 = 0.0;
        for (load, row) in rows.chain(growth).chain(slow) {
            let (name, kept, taken) = (row.name, row.rounds_kept, row.samples.len());
            if row.failed > 0 {
                writeln!(f, "{load}, {name}: {} requests FAILED", row.failed)?;
            }
            if kept < taken {
                writeln!(f, "{load}, {name}: {kept} of {taken} rounds kept, the others lost to steal")?;
            }
            elsewhere = elsewhere.max(row.elsewhere.unwrap_or_default());
        }
        if elsewhere > 0.05 {
            let percent = elsewhere * 100.0;
            writeln!(
                f,
                "other programs used up to {percent:.0} % of the machine; take it again when it is quiet"
            )?;
        }
        Ok(())
    }
}

/// The figures of the halves of a pair.
fn halves(values: impl Iterator<Item = f64>) -> String {
    let texts: Vec<_> = values.map(|value| format!("{value:.1}")).collect();
    if texts.is_empty() { "-".into() } else { texts.join(" + ") }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}
