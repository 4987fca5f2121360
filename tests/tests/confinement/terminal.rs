//! A terminal of the command's own, by Python's pty: its keys, its foreground, and the jobs of a shell on either side.

use std::fs;

use super::outer::{Outer, open_to_all, outer};

/// What the scripts have in common: `wait` for a word, `send` a line, `press` a key and wait for its effect. A program that
/// ticks has the foreground: a shell gives it before it lets the program go on.
const PRELUDE: &str = r#"
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen, mark, deadline = b"", 0, time.monotonic() + 150
def wait(word):
    global seen, mark
    word = word.encode()
    while word not in seen[mark:]:
        if time.monotonic() > deadline: sys.exit("no %r in %r" % (word, seen[mark:]))
        if select.select([fd], [], [], 0.1)[0]:
            try: seen += os.read(fd, 1000)
            except OSError: sys.exit("ended: %r" % seen)
    mark = seen.index(word, mark) + len(word)
def send(line): os.write(fd, line.encode() + b"\n")
def press(key, word):
    os.write(fd, key)
    wait(word)
def ended():
    global seen
    try:
        while time.monotonic() < deadline:
            if select.select([fd], [], [], 1)[0]: seen += os.read(fd, 1000)
        sys.exit("not ended: %r" % seen[mark:])
    except OSError: pass
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"#;

/// An interactive bash, in which `run` stands for the program and its word.
const SHELL: &str = r#"
def at(prompt, line): wait(prompt); send(line)
run = sys.argv[1] + " run -- "
at("OUT> ", "bind 'set enable-bracketed-paste off' 2>/dev/null")
"#;

async fn in_a_terminal(outer: &Outer, script: &str, command: &[&str]) -> String {
    let python = outer.path("terminal.py");
    fs::write(&python, format!("{PRELUDE}{script}")).unwrap();
    open_to_all(&python);
    let done = outer
        .as_nobody("/usr/bin/python3")
        .arg(&python)
        .arg(outer.path("bin/sluicegate"))
        .args(command)
        .env("TERM", "dumb")
        .env("PS1", "OUT> ")
        .run()
        .await;
    done.succeeded()
}

async fn in_a_shell(outer: &Outer, script: &str) -> String {
    let shell = ["bash", "--norc", "--noprofile", "-i"];
    in_a_terminal(outer, &format!("{SHELL}{script}"), &shell).await
}

/// Before it has read from the terminal, a key is for the group of `run`, which passes it on; afterwards it is the command's at once.
/// The command waits for both: a shell's `read` would not see a signal of the moment before it waits.
#[test]
fn the_terminal_is_the_commands() {
    outer("terminal::the_terminal_is_the_commands", async |outer| {
        let inside = "import os, select, signal, sys\n\
            told, tell = os.pipe()\n\
            os.set_blocking(tell, False)\n\
            signal.signal(signal.SIGINT, lambda *_: None)\n\
            signal.set_wakeup_fd(tell)\n\
            print('ready', os.ttyname(0), flush=True)\n\
            interrupted, lines = 0, 0\n\
            while lines < 2:\n\
            \x20   ready = select.select([0, told], [], [])[0]\n\
            \x20   if told in ready:\n\
            \x20       interrupted += os.read(told, 100).count(signal.SIGINT)\n\
            \x20       print('interrupted', interrupted, flush=True)\n\
            \x20   elif 0 in ready:\n\
            \x20       lines += 1\n\
            \x20       print('got', os.read(0, 100).decode().strip(), flush=True)\n\
            sys.exit(5)\n";
        let script = r#"
wait("ready /dev/pts/")
press(b"\x03", "interrupted 1")
send("a line")
wait("got a line")
press(b"\x03", "interrupted 2")
send("another")
wait("got another")
print(ended(), seen.count(b"interrupted"))
"#;
        let program = outer.text("bin/sluicegate");
        let command = [&*program, "run", "--", "/usr/bin/python3", "-c", inside];
        assert_eq!(in_a_terminal(&outer, script, &command).await, "5 2\n");
    });
}

/// A new size of the window is seen by the command, once each: while the foreground is that of `run`, and after it was given away.
#[test]
fn a_window_that_changes_its_size() {
    outer("terminal::a_window_that_changes_its_size", async |outer| {
        let inside = "import os, signal, sys, time\n\
            seen = []\n\
            def changed(*_):\n\
            \x20   seen.append(os.get_terminal_size(0)); os.write(1, b'size %d %d\\n' % seen[-1])\n\
            signal.signal(signal.SIGWINCH, changed)\n\
            print('ready', flush=True)\n\
            while not seen: time.sleep(0.05)\n\
            print('got', sys.stdin.readline().strip(), flush=True)\n\
            while len(seen) < 2: time.sleep(0.05)\n\
            sys.exit(5)\n";
        let script = r#"
import fcntl, struct, termios
def size(rows, columns): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
wait("ready")
size(40, 100)
wait("size 100 40")
send("a line")
wait("got a line")
size(30, 90)
wait("size 90 30")
print(ended(), seen.count(b"size "))
"#;
        let program = outer.text("bin/sluicegate");
        let python = ["--", "/usr/bin/python3", "-c", inside];
        for flags in [&["run"][..], &["run", "--unconfined"]] {
            let command = [&[&*program][..], flags, &python[..]].concat();
            assert_eq!(in_a_terminal(&outer, script, &command).await, "5 2\n");
        }
    });
}

/// Ctrl-C, Ctrl-Z, fg and bg of the whole, which has not asked for the foreground.
#[test]
fn a_job_of_the_shell_outside() {
    outer("terminal::a_job_of_the_shell_outside", async |outer| {
        let script = r#"
at("OUT> ", run + "bash -c 'trap \"echo got-int\" INT; echo u\"\"p; while :; do echo tick; sleep 0.1; done'")
wait("up\r\n")
press(b"\x03", "got-int")
press(b"\x1a", "Stopped")
at("OUT> ", "fg")
wait("tick\r\n")
press(b"\x03", "got-int")
press(b"\x1a", "Stopped")
at("OUT> ", "bg")
at("OUT> ", "kill -TERM %1; wait %1; echo the code is $?")
wait("the code is 143")
# A script around it is interrupted with it, as the same key would anything else.
at("OUT> ", "sh -c 'trap \"echo around; exit 4\" INT; " + run + "sh -c \"echo u\"\"p; exec sleep 1000\"; echo not-this-$((1+1))'")
wait("up\r\n")
press(b"\x03", "around")
at("OUT> ", "echo the code is $?; exit 7")
wait("the code is 4")
print(ended(), b"not-this-2" in seen)
"#;
        assert_eq!(in_a_shell(&outer, script).await, "7 False\n");
    });
}

#[test]
fn a_shell_inside_has_jobs_and_can_be_suspended() {
    outer(
        "terminal::a_shell_inside_has_jobs_and_can_be_suspended",
        async |outer| {
            let script = r#"
at("OUT> ", run + "env PS1='IN> ' bash --norc --noprofile -i")
at("IN> ", "bash -c 'trap \"echo got-int; exit\" INT; echo u\"\"p; while :; do echo tick; sleep 0.1; done'")
wait("up\r\n")
press(b"\x1a", "Stopped")
at("IN> ", "fg")
wait("tick\r\n")
press(b"\x03", "got-int")
for n in range(2):
    at("IN> ", "suspend")
    wait("Stopped")
    at("OUT> ", "echo outside $((40+%d))" % n)
    wait("outside 4%d" % n)
    at("OUT> ", "fg")
    wait("bash -")
    send("echo inside $((40+%d))" % n)
    wait("inside 4%d" % n)
at("IN> ", "exit 3")
at("OUT> ", "echo the code is $?")
wait("the code is 3")
at("OUT> ", "read -p ? answer && echo answer $answer")
at("?", "typed")
wait("answer typed")
at("OUT> ", "exit 7")
print(ended())
"#;
            assert_eq!(in_a_shell(&outer, script).await, "7\n");
        },
    );
}

/// Whoever reads keys gets them: a pager behind it, or the command itself.
#[test]
fn the_foreground_is_for_who_asks_for_it() {
    outer(
        "terminal::the_foreground_is_for_who_asks_for_it",
        async |outer| {
            let script = r#"
at("OUT> ", run + "seq 9 | bash -c 'cat >/dev/null; exec </dev/tty; echo p\"\"ager; read x; echo pager got $x'")
wait("pager\r\n")
send("one")
wait("pager got one")
at("OUT> ", run + "sh -c 'stty -echo; echo c\"\"ommand; read x; echo command got $x; stty echo'")
wait("command\r\n")
send("two")
wait("command got two")
at("OUT> ", run + "bash -c 'trap \"echo got-int; exit 9\" INT; read x; echo c\"\"ommand $x; while :; do echo tick; sleep 0.1; done'; echo the code is $?")
send("three")
wait("command three")
press(b"\x03", "got-int")
wait("the code is 9")
at("OUT> ", "exit 7")
print(ended())
"#;
            assert_eq!(in_a_shell(&outer, script).await, "7\n");
        },
    );
}

/// A script around it is over when a key has ended it, as it would be with any other program.
#[test]
fn a_key_that_ends_the_command_ends_the_script_around_it() {
    outer(
        "terminal::a_key_that_ends_the_command_ends_the_script_around_it",
        async |outer| {
            let script = r#"
for flags in "", "--unconfined ":
    at("OUT> ", "bash -c '" + run.replace("-- ", flags + "-- ") + "sh -c \"echo u\"\"p; exec sleep 1000\"; echo not-this-$((1+1))'")
    wait("up\r\n")
    os.write(fd, b"\x03")
    at("OUT> ", "echo the code is $?")
    wait("the code is 130")
# Whoever says 130 itself has taken note of it.
at("OUT> ", "bash -c '" + run + "bash -c \"trap \\\"exit 130\\\" INT; echo u\"\"p; while :; do sleep 0.1; done\"; echo and-this-$((1+1))'")
wait("up\r\n")
press(b"\x03", "and-this-2")
at("OUT> ", "exit 7")
print(ended(), b"not-this-2" in seen)
"#;
            assert_eq!(in_a_shell(&outer, script).await, "7 False\n");
        },
    );
}

/// It is in the background there, where no shell gives it the terminal, and who started it is to see the time pass.
#[test]
fn a_time_limit_holds_for_a_command_that_reads_keys() {
    outer(
        "terminal::a_time_limit_holds_for_a_command_that_reads_keys",
        async |outer| {
            let script = r#"
for asks in "read x", "stty -echo":
    at("OUT> ", "sh -c 'timeout 2 " + run + "sh -c \"" + asks + "; echo never\"; echo the code is $?'")
    wait("the code is 124")
at("OUT> ", "exit 7")
print(ended(), seen.count(b"never\r\n"))
"#;
            assert_eq!(in_a_shell(&outer, script).await, "7 0\n");
        },
    );
}

/// Nobody is there to continue it: the command goes on, and does not wait for ever.
#[test]
fn without_a_shell_outside_nothing_hangs() {
    outer(
        "terminal::without_a_shell_outside_nothing_hangs",
        async |outer| {
            let script = r#"
at("IN> ", "suspend")
wait("IN> ")
send("exit 3")
print(ended())
"#;
            let program = outer.text("bin/sluicegate");
            let shell = ["bash", "--norc", "--noprofile", "-i"];
            let command = [&[&*program, "run", "--env", "PS1=IN> ", "--"], &shell[..]].concat();
            let script = format!("def at(prompt, line): wait(prompt); send(line)\n{script}");
            assert_eq!(in_a_terminal(&outer, &script, &command).await, "3\n");
        },
    );
}
