//! The shell of the image: scripts as people put them into manifests, and signals.
#![allow(clippy::unwrap_used)]

mod program_file;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use program_file::toolbox;
use tempfile::TempDir;

/// Script, what it prints (standard error with standard output), and its exit code.
const CASES: &[(&str, &str, i32)] = &[
    ("echo a b; echo c", "a b\nc\n", 0),
    ("true && echo yes || echo no", "yes\n", 0),
    (r#"X=1; echo "$X" '$X' ${Y:-none}"#, "1 $X none\n", 0),
    ("echo hello | cat | cat", "hello\n", 0),
    ("nothing-there 2>&1 | cat; echo $?", "sh: nothing-there: not found\n0\n", 0),
    ("nothing-there 2>/dev/null", "", 127),
    ("exit 3", "", 3),
    ("! false", "", 0),
    ("exec echo replaced", "replaced\n", 0),
    ("sh -c 'echo $0 $1' name value", "name value\n", 0),
    ("for i in 1 2 3; do echo $i; done", "1\n2\n3\n", 0),
    ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); [ $i = 2 ] && continue; echo $i; done", "1\n3\n", 0),
    ("until [ -f $TMP/uu ]; do touch $TMP/uu; echo w; done; rm $TMP/uu", "w\n", 0),
    ("if [ -f /nope ]; then echo y; elif test 1 = 1; then echo e; else echo n; fi", "e\n", 0),
    ("case abc in x) echo x;; a*|b) echo ab;; *) echo o;; esac", "ab\n", 0),
    (r#"f() { local x=$1; echo "f $x $#"; return 4; }; f a b; echo $?"#, "f a 2\n4\n", 0),
    ("echo $(echo a; echo b) \"$(echo c\necho d)\" `echo e`", "a b c\nd e\n", 0),
    ("(cd /tmp; pwd); pwd >/dev/null; x=1; (x=2); echo $x", "/tmp\n1\n", 0),
    (r#"printf "%s-%03d|%5s|%-3s|\n" a 7 b c d 8"#, "a-007|    b|c  |\nd-008|     |   |\n", 0),
    (
        r#"echo one >$TMP/o; echo two >>$TMP/o; while read -r l; do echo "<$l>"; done <$TMP/o; wc -l <$TMP/o"#,
        "<one>\n<two>\n2\n",
        0,
    ),
    ("cat <<EOF\nhi $((1+2)) $HOMELESS\nEOF\necho after", "hi 3 \nafter\n", 0),
    ("cat <<'E'\n$x\nE", "$x\n", 0),
    ("sleep 0.05 & p=$!; wait $p; echo done $?", "done 0\n", 0),
    ("(exit 5) & wait $!; echo $?", "5\n", 0),
    ("set -e; false; echo no", "", 1),
    ("set -e; if false; then :; fi; false || true; ! true; echo yes", "yes\n", 0),
    ("set -u; echo $NOPE_X; echo no", "sh: NOPE_X: parameter not set\n", 2),
    (r#"trap "echo bye" EXIT; echo hi"#, "hi\nbye\n", 0),
    (r#"trap "echo term; exit 3" TERM; kill -TERM $$; sleep 0.01; echo no"#, "term\n", 3),
    (
        r#"trap "echo T; exit 0" TERM; (sleep 0.1; kill $$) & while true; do sleep 5 & wait $!; done"#,
        "T\n",
        0,
    ),
    (
        "x=/a/b/c.tar.gz; echo ${x##*/} ${x%.*} ${x%%.*} ${x#/} ${#x}",
        "c.tar.gz /a/b/c.tar /a/b/c a/b/c.tar.gz 13\n",
        0,
    ),
    (
        r#"set -- a "b c" d; for x in "$@"; do echo "[$x]"; done; shift; echo $1 $#; echo "$*""#,
        "[a]\n[b c]\n[d]\nb c 2\nb c d\n",
        0,
    ),
    (r#"set --; for x in "$@"; do echo no; done; echo ok"#, "ok\n", 0),
    ("echo $((2+3*4)) $(( (2+3)*4 )) $((7/2)) $((7%4)) $((1<2&&3>2)) $((0x10))", "14 20 3 3 1 16\n", 0),
    ("seq 3 | while read x; do echo $((x*2)); done | tail -n 1", "6\n", 0),
    (r#"echo "a  b" a\ \ b; x="a  b"; echo $x "$x""#, "a  b a  b\na b a  b\n", 0),
    ("cd /proc/self; echo /proc/self/stat[u]s", "/proc/self/status\n", 0),
    ("echo a >&2", "a\n", 0),
    ("{ echo a; echo b >&2; } 2>/dev/null | grep -c .", "1\n", 0),
    ("false | true; echo $?; set -o pipefail; false | true; echo $?", "0\n1\n", 0),
    ("A=5 printenv A; echo ${A-unset}", "5\nunset\n", 0),
    (r#"export B=7; sh -c "echo \$B"; C=1; sh -c "echo \${C-no}""#, "7\nno\n", 0),
    (r#"eval "x=1; echo \$x"; . /dev/null; command -v echo; type cd"#, "1\necho\ncd is a shell builtin\n", 0),
    (
        "while true; do break; done; for a in 1 2; do for b in 1 2; do break 2; done; echo no; done; echo ok",
        "ok\n",
        0,
    ),
    (r#"echo x | { read y; echo "y=$y"; }"#, "y=x\n", 0),
    ("if", "sh: \"then\" is missing at the end\n", 2),
    ("echo )", "sh: syntax error in line 2: unexpected \")\"\n", 2),
    ("echo a#b # c", "a#b\n", 0),
    (r#"IFS=:; for d in $(echo a:b::c); do echo "<$d>"; done"#, "<a>\n<b>\n<>\n<c>\n", 0),
    ("x=$(false); echo $?; y=${z:=def}; echo $z", "1\ndef\n", 0),
    ("exec 3>$TMP/e; echo hi >&3; exec 3>&-; cat $TMP/e", "hi\n", 0),
    (r#"n=0; while :; do n=$((n+1)); if [ "$n" -ge 3 ]; then exit $n; fi; done"#, "", 3),
    (r#"echo "${X:-a b}" ${X:-a b} "${X+set}""#, "a b a b \n", 0),
    (r#"date +%s | grep -Eq "^[0-9]+$" && echo ok"#, "ok\n", 0),
    ("sleep 5 & kill $!; wait $!; echo $?", "143\n", 0),
    (r#"echo -n a; echo -e "b\tc""#, "ab\tc\n", 0),
    (r#"unset x; echo "${x:?gone}"; echo no"#, "sh: x: gone\n", 2),
    (r#"env -i A=1 env; env B=2 sh -c "echo \$B""#, "A=1\n2\n", 0),
];

#[test]
fn scripts_do_what_they_do_elsewhere() {
    for (script, expected, code) in CASES {
        let directory = TempDir::new().unwrap();
        let output = Command::new(toolbox())
            .args(["sh", "-c", &format!("exec 2>&1\n{script}")])
            .env("TMP", directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((text.as_str(), output.status.code()), (*expected, Some(*code)), "{script}");
    }
}

#[test]
fn scripts_come_from_files_and_standard_input() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("script");
    fs::write(&file, "set -e\necho \"$1 of $#\"\ncat <<END\n  text\nEND\n").unwrap();
    let output = Command::new(toolbox()).arg("sh").arg(&file).args(["first", "second"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first of 2\n  text\n");

    let mut child =
        Command::new(toolbox()).arg("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let script = "read line\nfor the command\necho \"[$line]\"\nif true\nthen cat\nfi\nthe rest\n";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[for the command]\nthe rest\n");
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process has a handler for SIGTERM, signal 15 (`SigCgt` of `proc_pid_status(5)`).
fn catches_sigterm(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set & 1 << 14 != 0)
}

/// As the first process of a container: SIGTERM ends a shell that has no trap for it, and runs the trap of one that
/// has.
#[test]
fn the_first_process_ends_when_told() {
    for (script, code) in [
        ("while true; do sleep 1000; done", 143),
        ("trap 'exit 7' TERM; while true; do sleep 1000 & wait $!; done", 7),
        ("sleep infinity", 143),
    ] {
        let mut outer = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(toolbox())
            .args(["sh", "-c", script])
            .spawn()
            .unwrap();
        // The shell is there, and so is what it waits for; the last one replaced the shell. The kernel drops a signal
        // that the first process of a namespace does not catch yet.
        let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = loop {
            assert_eq!(outer.try_wait().unwrap(), None, "{script}");
            let first = children(outer.id()).first().copied();
            if let Some(first) = first
                && children(first).iter().chain([&first]).any(|pid| name(*pid).starts_with("sleep"))
                && catches_sigterm(first)
            {
                break first;
            }
            std::thread::yield_now();
        };
        let kill = Command::new("kill").args(["-TERM", &first.to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(outer.wait().unwrap().code(), Some(code), "{script}");
    }
}
