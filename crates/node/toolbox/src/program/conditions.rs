//! `test` and `[` (POSIX.1-2017, `test`).

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::Answer;

/// `test EXPRESSION`: 0 if it holds.
pub fn test(arguments: &[String]) -> Answer {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut reader = Reader { words: &words, at: 0 };
    if words.is_empty() {
        return Ok(1);
    }
    let holds = reader.any()?;
    match reader.words.get(reader.at) {
        None => Ok(u8::from(!holds)),
        Some(word) => Err(format!("unexpected {word:?}")),
    }
}

/// `[ EXPRESSION ]`
pub fn bracket(arguments: &[String]) -> Answer {
    match arguments.split_last() {
        Some((last, rest)) if last == "]" => test(rest),
        _ => Err("] is missing".to_owned()),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self, further: usize) -> Option<&'a str> {
        self.words.get(self.at + further).copied()
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut holds = self.all()?;
        while self.peek(0) == Some("-o") {
            self.at += 1;
            holds |= self.all()?;
        }
        Ok(holds)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut holds = self.not()?;
        while self.peek(0) == Some("-a") {
            self.at += 1;
            holds &= self.not()?;
        }
        Ok(holds)
    }

    fn not(&mut self) -> Result<bool, String> {
        // `! = x` compares a text that is an exclamation mark.
        if self.peek(0) == Some("!") && self.peek(1).is_some() && !self.peek(1).is_some_and(is_binary) {
            self.at += 1;
            return Ok(!self.not()?);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<bool, String> {
        let first = self.peek(0).ok_or("an expression is missing")?;
        if let (Some(operator), Some(right)) = (self.peek(1).filter(|word| is_binary(word)), self.peek(2)) {
            self.at += 3;
            return binary(first, operator, right);
        }
        if first == "(" && self.peek(1).is_some() {
            self.at += 1;
            let holds = self.any()?;
            self.at += 1;
            return match self.words.get(self.at - 1) {
                Some(&")") => Ok(holds),
                _ => Err(") is missing".to_owned()),
            };
        }
        let letter =
            first.strip_prefix('-').and_then(|rest| rest.chars().next()).filter(|_| first.len() == 2);
        if let (Some(letter), Some(operand)) = (letter, self.peek(1))
            && let Some(holds) = unary(letter, operand)
        {
            self.at += 2;
            return Ok(holds);
        }
        self.at += 1;
        Ok(!first.is_empty())
    }
}

fn is_binary(word: &str) -> bool {
    ["=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"].contains(&word)
}

fn binary(left: &str, operator: &str, right: &str) -> Result<bool, String> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text:?} is no number"));
    let time = |path: &str| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let place = |path: &str| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    Ok(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">" => left > right,
        "-nt" => time(left) > time(right),
        "-ot" => time(left) < time(right),
        "-ef" => place(left).is_some() && place(left) == place(right),
        _ => {
            let (left, right) = (number(left)?, number(right)?);
            match operator {
                "-eq" => left == right,
                "-ne" => left != right,
                "-lt" => left < right,
                "-le" => left <= right,
                "-gt" => left > right,
                _ => left >= right,
            }
        }
    })
}

fn unary(letter: char, operand: &str) -> Option<bool> {
    let file = |check: fn(&Metadata) -> bool| fs::metadata(operand).is_ok_and(|meta| check(&meta));
    Some(match letter {
        'n' => !operand.is_empty(),
        'z' => operand.is_empty(),
        'e' => file(|_| true),
        'f' => file(Metadata::is_file),
        'd' => file(Metadata::is_dir),
        's' => file(|meta| meta.len() > 0),
        'p' => file(|meta| meta.file_type().is_fifo()),
        'S' => file(|meta| meta.file_type().is_socket()),
        'b' => file(|meta| meta.file_type().is_block_device()),
        'c' => file(|meta| meta.file_type().is_char_device()),
        'h' | 'L' => fs::symlink_metadata(operand).is_ok_and(|meta| meta.is_symlink()),
        'r' => allowed(operand, 0o4),
        'w' => allowed(operand, 0o2),
        'x' => allowed(operand, 0o1),
        't' => match operand {
            "0" => std::io::IsTerminal::is_terminal(&std::io::stdin()),
            "1" => std::io::IsTerminal::is_terminal(&std::io::stdout()),
            "2" => std::io::IsTerminal::is_terminal(&std::io::stderr()),
            _ => false,
        },
        _ => return None,
    })
}

/// Whether the mode bits let us read, write or execute.
fn allowed(path: &str, bits: u32) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    let (uid, groups) = super::small::identity();
    let mode = meta.mode();
    if uid == 0 {
        return bits != 0o1 || meta.is_dir() || mode & 0o111 != 0;
    }
    let shift = if meta.uid() == uid {
        6
    } else if groups.contains(&meta.gid()) {
        3
    } else {
        0
    };
    mode >> shift & bits != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_hold_or_not() {
        let cases = [
            ("a = a", true),
            ("a != a", false),
            ("3 -lt 10", true),
            ("-z ''", true),
            ("! -e /proc/nothing", true),
            ("-d / -a -f /proc/version", true),
            ("-f / -o -n x", true),
            ("( a = b ) -o a = a", true),
            ("! = !", true),
            ("-f", true),
            ("x", true),
        ];
        for (text, expected) in cases {
            let words: Vec<String> = text.split(' ').map(|word| word.replace('\'', "")).collect();
            assert_eq!(test(&words), Ok(u8::from(!expected)), "{text}");
        }
        assert_eq!(test(&[]), Ok(1));
        assert!(test(&["x".into(), "-eq".into(), "1".into()]).is_err());
        assert!(bracket(&["x".into()]).is_err());
    }
}
