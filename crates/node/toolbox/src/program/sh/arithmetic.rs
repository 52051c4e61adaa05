//! `$((…))`: whole numbers of 64 bits with C's operators.

/// Gives and takes the values of variables.
pub trait Variables {
    /// The value of a variable; none and nonsense are 0.
    fn number(&self, name: &str) -> i64;
    /// Sets a variable.
    fn set_number(&mut self, name: &str, value: i64);
}

/// Operators from the weakest to the strongest.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];
const ASSIGNMENTS: &[&str] = &["+=", "-=", "*=", "/=", "%=", "="];
const MAX_DEPTH: usize = 100;

/// The value of an expression.
pub fn evaluate(text: &str, variables: &mut dyn Variables) -> Result<i64, String> {
    let mut reader = Reader { text, at: 0, variables, depth: 0, skip: false };
    let value = reader.ternary()?;
    match reader.rest() {
        "" => Ok(value),
        rest => Err(format!("arithmetic: unexpected {rest:?}")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    variables: &'a mut dyn Variables,
    depth: usize,
    /// The value does not matter: nothing is assigned, divided by, or complained about.
    skip: bool,
}

impl<'a> Reader<'a> {
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn ternary(&mut self) -> Result<i64, String> {
        let condition = self.binary(0)?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let skip = self.skip;
        self.skip = skip || condition == 0;
        let yes = self.ternary()?;
        if !self.eat(":") {
            return Err("arithmetic: ? without :".to_owned());
        }
        self.skip = skip || condition != 0;
        let no = self.ternary()?;
        self.skip = skip;
        Ok(if condition != 0 { yes } else { no })
    }

    fn binary(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let rest = self.rest();
            let longer = |operator: &str| {
                let next = rest.as_bytes().get(operator.len());
                // `&` of `&&`, `<` of `<<`.
                operator.len() == 1 && "|&<>".contains(operator) && next == operator.as_bytes().first()
            };
            let found = operators.iter().find(|operator| rest.starts_with(**operator) && !longer(operator));
            let Some(operator) = found else { return Ok(left) };
            self.at += operator.len();
            let skip = self.skip;
            self.skip = skip || (*operator == "&&" && left == 0) || (*operator == "||" && left != 0);
            let right = self.binary(level + 1)?;
            self.skip = skip;
            left = if skip { 0 } else { apply(operator, left, right)? };
        }
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("arithmetic: nested too deep".to_owned());
        }
        let value = match self.rest().chars().next() {
            Some('!') if !self.rest().starts_with("!=") => {
                self.at += 1;
                Ok(i64::from(self.unary()? == 0))
            }
            Some('-') => {
                self.at += 1;
                Ok(self.unary()?.wrapping_neg())
            }
            Some('+') => {
                self.at += 1;
                self.unary()
            }
            Some('~') => {
                self.at += 1;
                Ok(!self.unary()?)
            }
            Some('(') => {
                self.at += 1;
                let value = self.ternary()?;
                if self.eat(")") { Ok(value) } else { Err("arithmetic: ) is missing".to_owned()) }
            }
            Some(c) if c.is_ascii_digit() => self.literal(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.variable(),
            _ => Err(format!("arithmetic: a number is missing in {:?}", self.text)),
        };
        self.depth -= 1;
        value
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn literal(&mut self) -> Result<i64, String> {
        let word = self.word();
        number(word).ok_or_else(|| format!("arithmetic: {word:?} is no number"))
    }

    fn variable(&mut self) -> Result<i64, String> {
        let name = self.word();
        let rest = self.rest();
        let assignment = ASSIGNMENTS.iter().find(|operator| rest.starts_with(**operator));
        let Some(operator) = assignment.filter(|_| !rest.starts_with("==")) else {
            return Ok(self.variables.number(name));
        };
        self.at += operator.len();
        let mut value = self.ternary()?;
        if !self.skip {
            if let Some(operator) = operator.strip_suffix('=').filter(|operator| !operator.is_empty()) {
                value = apply(operator, self.variables.number(name), value)?;
            }
            self.variables.set_number(name, value);
        }
        Ok(value)
    }
}

/// A number as in C: `10`, `0x1f`, `017`.
pub fn number(text: &str) -> Option<i64> {
    let (text, minus) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16),
        None if text.len() > 1 && text.starts_with('0') => i64::from_str_radix(text, 8),
        None => text.parse(),
    };
    value.ok().map(|value| if minus { value.wrapping_neg() } else { value })
}

fn apply(operator: &str, left: i64, right: i64) -> Result<i64, String> {
    let bits = || u32::try_from(right & 63).unwrap_or(0);
    Ok(match operator {
        "||" => i64::from(left != 0 || right != 0),
        "&&" => i64::from(left != 0 && right != 0),
        "|" => left | right,
        "^" => left ^ right,
        "&" => left & right,
        "==" => i64::from(left == right),
        "!=" => i64::from(left != right),
        "<=" => i64::from(left <= right),
        ">=" => i64::from(left >= right),
        "<" => i64::from(left < right),
        ">" => i64::from(left > right),
        "<<" => left.wrapping_shl(bits()),
        ">>" => left.wrapping_shr(bits()),
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        _ if right == 0 => return Err("arithmetic: division by zero".to_owned()),
        "/" => left.wrapping_div(right),
        _ => left.wrapping_rem(right),
    })
}
