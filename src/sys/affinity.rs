//! Which processors a thread may run on, and who goes first.

use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use std::io;

/// Pins the calling thread to one processor.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// Lets the data cores go first where the calling thread shares a processor with one: shipping and the log have time, a
/// client has not. The thread still gets a quarter of a busy processor (nice 5).
pub fn go_behind_data_cores() {
    give_way(5);
}

/// The same for work that nobody waits for: it gets what all others leave (nice 19).
pub fn go_last() {
    give_way(19);
}

fn give_way(nice: i32) {
    // JUSTIFICATION: no crate of ours wraps setpriority(2).
    // SAFETY: it takes three numbers and touches no memory; on Linux, 0 is the calling thread. A refusal (it cannot be
    // refused: this only gives way) would leave the priority as it was.
    let _ = unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, nice) };
}

/// The processors this process may run on, in order: a container or a unit with CPUAffinity= has fewer than the host.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_on_its_processor_alone() {
        let first = allowed_cpus().unwrap()[0];
        std::thread::spawn(move || {
            pin_thread(first).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [first]);
        })
        .join()
        .unwrap();
    }
}
