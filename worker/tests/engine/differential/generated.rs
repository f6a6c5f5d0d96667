//! Generates Dockerfiles from a seed, with instructions in all their spellings.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::Case;

/// An infinite sequence, which is the same for the same seed.
pub(super) fn cases(seed: u64) -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || Making { random: &mut random }.case())
}

struct Making<'a> {
    random: &'a mut StdRng,
}

const IMAGES: &[&str] = &[
    "a:1",
    "b",
    "127.0.0.1/c:2",
    "127.0.0.1/d/e",
    "docker.io/f",
    "library/g:x-y",
    "index.docker.io/h/i:3",
];
const STAGES: &[&str] = &["s", "t", "S", "x.y", "scratch"];
const BLANKS: &[&str] = &[
    "  ",
    "\t",
    " \\\n",
    " \\\n# c\n",
    " \\\n\n  ",
    "\\\n \\\n",
    " \\ \t\n",
    " `\n",
    "\u{a0}",
    "\u{3000}",
    "\u{85}",
    "\u{b}",
    "\u{c}",
    " \r",
    "\\\r\n",
    " \\\n#\\\n",
    " \\\\\n",
];
const TOP: &[&str] = &[
    "# escape=`\n",
    "# escape=\\\n",
    "#Escape = `\n",
    "# a=b\n",
    "# check=skip=all\n",
    "#!/bin/x\n",
    "# a comment\n",
    "\n",
    " # escape=`\n",
    "# escape=`` \n",
    "\u{feff}",
];
const SYNTAX: &[&str] = &[
    "# syntax=f:1\n",
    "#syntax=f:1 x\n",
    "# SYNTAX =\tf:1\n",
    " # syntax=f:1\n",
    "# syntax=\n",
    "# syntax=f:1\t\r\n",
];
const PLAIN: &[&str] = &[
    "USER 1",
    "ENV A=1 B=\"2 3\"",
    "ENV A <<EOF",
    "LABEL a=\"b\\\nc\"",
    "CMD [\"x\"]",
    "CMD x <<EOF",
    "HEALTHCHECK CMD true",
    "HEALTHCHECK --interval=1s NONE",
    "SHELL [\"/x\", \"-c\"]",
    "WORKDIR /x",
    "EXPOSE 80/tcp",
    "STOPSIGNAL 9",
    "VOLUME /v",
    "ARG I",
    "ARG J=a <<EOF",
    "# a comment",
    "",
    "\t",
    "FORM a",
    "RUN",
    "RUN echo \\",
    "RUN echo hi; echo \\\n# c\n  there",
    "COPY f /",
    "ADD f /",
];
/// Openings of heredocs, and lines that may end them.
const HEREDOCS: &[(&str, &[&str])] = &[
    ("<<EOF", &["EOF"]),
    ("<<-EOF", &["\t\tEOF"]),
    ("<<-EOF", &[" EOF", "EOF"]),
    ("<<'EOF'", &["EOF"]),
    ("<<\"EOF\"", &["EOF"]),
    ("<<E\"O\"F", &["EOF"]),
    ("<<E\\OF", &["EOF"]),
    ("<< EOF", &["EOF"]),
    ("3<<EOF", &["EOF"]),
    ("x<<EOF", &["EOF"]),
    ("<<#x", &["#x"]),
    ("<<-#x", &["\t#x"]),
    ("<<\"USER 1\"", &["USER 1"]),
    ("<<'a b'", &["a b"]),
    ("<<\"\"", &[""]),
    ("<<''", &[]),
    ("<<$X", &["$X"]),
    ("<<${X:-y}", &["${X:-y}"]),
    ("<<EOF;true", &["EOF;true"]),
    ("<<A <<B", &["A", "B"]),
    ("<<A <<-B <<#C", &["A", "\tB", "#C"]),
    ("<<A <<A", &["A", "A"]),
    ("<<<EOF", &[]),
    ("'<<EOF'", &[]),
    ("\\<<EOF", &[]),
    ("$((1<<2))", &[]),
    ("$((1 << 2))", &[]),
    ("${A#<<EOF}", &["EOF}"]),
    ("\"a <<EOF", &["EOF"]),
    ("<<EOF\r", &["EOF"]),
    ("<<EOF", &["EOF\r"]),
    ("<<EOF", &["EOF "]),
    ("<<é", &["é"]),
    ("<<E\u{a0}F", &["E\u{a0}F"]),
    ("<<E`OF", &["E`OF"]),
    ("# <<EOF", &["EOF"]),
];

impl Making<'_> {
    fn case(&mut self) -> Case {
        let mut text = String::new();
        while self.one_of(3) {
            text.push_str(self.any(TOP));
        }
        if self.one_of(12) {
            text.push_str(self.any(SYNTAX));
        }
        for _ in 0..self.random.random_range(0..3) {
            text.push_str(&self.argument());
        }
        for _ in 0..self.random.random_range(1..4) {
            text.push_str(&self.from());
            for _ in 0..self.random.random_range(0..4) {
                text.push_str(&self.instruction());
            }
        }
        while self.one_of(4) {
            text = self.changed(&text);
        }
        if self.one_of(8) {
            text = text.replace('\n', self.any(&["\r\n", "\r\r\n"]));
        }
        let mut case = Case { text, ..Case::default() };
        for (name, value) in
            [("I", "127.0.0.1/j:9"), ("T", "4"), ("X", ""), ("P", "k:1-z"), ("TARGETARCH", "l")]
        {
            if self.one_of(6) {
                case.build_args.insert(name.to_owned(), value.to_owned());
            }
        }
        if self.one_of(8) {
            case.target = Some(self.any(&["s", "S", "t", "0", "x.y"]).to_owned());
        }
        case
    }

    fn argument(&mut self) -> String {
        let argument = match self.random.random_range(0..8) {
            0 => format!("I={}", self.image()),
            1 => "T".to_owned(),
            2 => "T=3 I='b:1'".to_owned(),
            3 => "I=\"a:1\" T=${I#a:}".to_owned(),
            4 => "P=127.0.0.1/m/n:1-z".to_owned(),
            5 => "T=\\3".to_owned(),
            6 => "T=\"3".to_owned(),
            _ => "X=".to_owned(),
        };
        format!("{}{}{argument}\n", self.keyword("ARG"), self.blank())
    }

    fn from(&mut self) -> String {
        let mut line = self.keyword("FROM") + &self.blank();
        if self.one_of(6) {
            line += self.any(&[
                "--platform=linux/amd64",
                "--platform=$TARGETPLATFORM",
                "--platform=\"$BUILDPLATFORM\"",
            ]);
            line += &self.blank();
        }
        line += &match self.random.random_range(0..6) {
            0 => self.any(STAGES).to_owned(),
            1 => "scratch".to_owned(),
            2 => self.variable(),
            _ => self.image(),
        };
        if self.one_of(2) {
            line += &self.blank();
            line += self.any(&["AS", "as", "As"]);
            line += &self.blank();
            line += self.any(STAGES);
        }
        line + self.any(&["", "", "", " ", "\t\r"]) + "\n"
    }

    fn instruction(&mut self) -> String {
        let prefix =
            if self.one_of(10) { self.keyword("ONBUILD") + &self.blank() } else { String::new() };
        let line = match self.random.random_range(0..6) {
            0 | 1 => self.with_heredocs(),
            2 => self.copy(),
            3 => self.mount(),
            _ => self.any(PLAIN).to_owned(),
        };
        format!("{prefix}{line}\n")
    }

    fn with_heredocs(&mut self) -> String {
        let &(begin, ends) = HEREDOCS.choose(self.random).unwrap();
        let start = match self.random.random_range(0..6) {
            0 => "COPY ".to_owned(),
            1 => "RUN [\"x\"] ".to_owned(),
            2 => format!("RUN --mount=from={},target=/m ", self.source()),
            3 => "RUN x".to_owned() + &self.blank(),
            _ => "RUN ".to_owned(),
        };
        let mut text = start + begin + self.any(&["", "", " /x", " | x", "\\\n y"]);
        for end in ends {
            text.push('\n');
            for _ in 0..self.random.random_range(0..3) {
                let bait = match self.random.random_range(0..4) {
                    0 => format!("FROM {}", self.image()),
                    1 => "USER 1".to_owned(),
                    2 => "x".to_owned(),
                    _ => self.copy(),
                };
                text += &(bait + "\n");
            }
            if !self.one_of(12) {
                text += end;
            }
        }
        text
    }

    fn copy(&mut self) -> String {
        let mut line = self.keyword("COPY") + &self.blank();
        if self.one_of(5) {
            line += self.any(&["--chown=1:1", "--chown=\"1 1\"", "--link", "--", "--chmod=7\\55"]);
            line += &self.blank();
        }
        let source = self.source();
        line += &match self.random.random_range(0..8) {
            0 => format!("--from=\"{source}\""),
            1 => format!("--from='{source}'"),
            2 => format!("--fr\\om={source}"),
            3 => format!("--FROM={source}"),
            4 => format!("--from={source} --from=b"),
            _ => format!("--from={source}"),
        };
        line + &self.blank() + self.any(&["/f /", "[\"/f\", \"/\"]", "/f --from=b /", "<<EOF /"])
    }

    fn mount(&mut self) -> String {
        let source = self.source();
        let mount = match self.random.random_range(0..10) {
            0 => format!("type=bind,from={source},target=/m"),
            1 => format!("target=/m,\"from={source}\""),
            2 => format!("type=cache,target=/m,from={source}"),
            3 => format!("type=tmpfs,target=/m,from={source}"),
            4 => format!("type=secret,id=x,from={source}"),
            5 => format!("FROM={source},target=/m"),
            6 => format!("from={source},from=b,target=/m"),
            7 => format!("\"target=/m,from={source}\""),
            8 => format!(" from={source},target=/m"),
            _ => format!("from={source},target=/m"),
        };
        let flag = self.any(&[
            "--mount=",
            "--mount=",
            "--mount=",
            "--network=none --mount=",
            "--mo\\unt=",
        ]);
        format!("RUN{}{flag}{mount}{}true", self.blank(), self.blank())
    }

    /// An image, or the name or number of a stage.
    fn source(&mut self) -> String {
        match self.random.random_range(0..6) {
            0 => self.any(STAGES).to_owned(),
            1 => self.any(&["0", "1", "7", "-1", "00"]).to_owned(),
            2 if self.one_of(3) => self.variable(),
            _ => self.any(IMAGES).to_owned(),
        }
    }

    fn image(&mut self) -> String {
        let image = self.any(IMAGES);
        match self.random.random_range(0..12) {
            0 => format!("\"{image}\""),
            1 => format!("'{image}'"),
            2 => image.replacen('b', "\\b", 1).replacen(':', "\\:", 1),
            3 => image.replacen(':', "':'", 1),
            _ => image.to_owned(),
        }
    }

    fn variable(&mut self) -> String {
        self.any(&[
            "$I",
            "${I}",
            "\"$I\"",
            "'$I'",
            "\\$I",
            "a:$T",
            "a:${T}x",
            "${X:-a:1}",
            "${X-a:1}",
            "${I:+b}",
            "${I+b}",
            "${Y:?no}",
            "${P##*/}",
            "${P#*/}",
            "${P%%:*}",
            "${P%-*}",
            "${P/m/o}",
            "${P//[a-z]/o}",
            "${I:-${P##*/}}",
            "${X:-'b'}",
            "b${X:+:1}",
            "a:${TARGETARCH}",
            "${T:-a}:${X:-1}",
            "${I",
            "${}",
            "$",
            "${P/m\\/n/q}",
            "${P##127?0*m/}",
        ])
        .to_owned()
    }

    fn keyword(&mut self, keyword: &str) -> String {
        match self.random.random_range(0..12) {
            0 => keyword.to_lowercase(),
            1 => format!("{}{}", &keyword[..1], keyword[1..].to_lowercase()),
            2 => format!(" \t{keyword}"),
            _ => keyword.to_owned(),
        }
    }

    fn blank(&mut self) -> String {
        if self.one_of(8) { self.any(BLANKS).to_owned() } else { " ".to_owned() }
    }

    /// Removes, repeats or moves a line, or removes or inserts characters.
    fn changed(&mut self, text: &str) -> String {
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        if self.one_of(2) && !lines.is_empty() {
            let at = self.random.random_range(0..lines.len());
            match self.random.random_range(0..3) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at]),
                _ => lines.swap(0, at),
            }
            return lines.concat();
        }
        let mut letters: Vec<char> = text.chars().collect();
        let at = self.random.random_range(0..=letters.len());
        if self.one_of(2) && at < letters.len() {
            letters.remove(at);
        } else {
            let more = self.any(&[
                "\\", "\"", "'", "`", "\n", " ", "<<", "$", "#", "\r", "{", "}", "=", ",", "[",
                "\0", "é",
            ]);
            letters.splice(at..at, more.chars());
        }
        letters.into_iter().collect()
    }

    /// True once in `times`.
    fn one_of(&mut self, times: u32) -> bool {
        self.random.random_ratio(1, times)
    }

    fn any<'t>(&mut self, among: &[&'t str]) -> &'t str {
        among.choose(self.random).unwrap()
    }
}
