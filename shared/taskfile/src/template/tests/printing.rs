use super::*;

#[test]
fn values_print_as_in_go() {
    print(&[
        ("{{list 1 \"a\" nil true 1.5}}", "[1 a <nil> true 1.5]"),
        ("{{dict \"b\" 2 \"a\" (list 1 2)}}", "map[a:[1 2] b:2]"),
        (
            "{{1000000.0}} {{123456789.0}} {{100000.0}} {{0.0001}} {{0.00001}}",
            "1e+06 1.23456789e+08 100000 0.0001 1e-05",
        ),
        ("{{1e100}} {{-1.5e-10}} {{div 7 2 | float64}}", "1e+100 -1.5e-10 3"),
        ("{{print 1 2 \"a\" \"b\" 3 4}}", "1 2ab3 4"),
        ("{{print nil nil}} {{print}} {{println 1 \"a\" nil}}", "<nil> <nil>  1 a <nil>\n"),
    ]);
}

#[test]
fn printf_knows_the_verbs_of_go() {
    for (format, arguments, output) in [
        ("%v %v %v %v", "1 `a` true nil", "1 a true <nil>"),
        (
            "%d|%5d|%-5d|%05d|%+d|% d|%x|%X|%o|%O|%b|%c|%q|%U",
            "7 7 7 -7 7 7 255 255 8 8 5 0x41 0x41 0x41",
            "7|    7|7    |-0007|+7| 7|ff|FF|10|0o10|101|A|'A'|U+0041",
        ),
        (
            "%#x %#o %#b %.3d %6.3d %-6.3d| %06.3d",
            "255 8 5 7 7 7 7",
            "0xff 010 0b101 007    007 007   |    007",
        ),
        (
            "%s|%5s|%-5s|%.2s|%q|%x|% X",
            "`é` `é` `é` `abc` `a\"` `hi` `hi`",
            "é|    é|é    |ab|\"a\\\"\"|6869|68 69",
        ),
        ("%t|%6t", "true false", "true| false"),
        (
            "%f|%.2f|%8.3f|%-8.1f|%08.3f|%+.1f",
            "1.5 1.005 3.14159 2.5 -3.14159 1.0",
            "1.500000|1.00|   3.142|2.5     |-003.142|+1.0",
        ),
        (
            "%e|%.2E|%g|%.3g|%.3g|%G",
            "123456.789 0.00012 1e21 1234.5 100.0 1e-7",
            "1.234568e+05|1.20E-04|1e+21|1.23e+03|100|1E-07",
        ),
        ("%%|%5%|%T|%T", "1 `a`", "%|%|int|string"),
        ("%v|%d|%s", "(list 1 `a`) (list 1 2) (dict `k` `v`)", "[1 a]|[1 2]|map[k:v]"),
        (
            "%#v %#v %#v",
            "`a` (list 1 nil) (dict `k` true)",
            "\"a\" []interface {}{1, interface {}(nil)} map[string]interface {}{\"k\":true}",
        ),
        ("%*d|%-*d|%.*f", "4 7 4 7 1 2.55", "   7|7   |2.5"),
        ("%[2]d %[1]d %d", "1 2", "2 1 2"),
    ] {
        print(&[(
            &format!(
                "{{{{printf `{format}` {}}}}}",
                arguments.replace('`', "\"").replace("\"a\"\"", "\"a\\\"\"")
            ),
            output,
        )]);
    }
}

#[test]
fn printf_complains_in_its_output() {
    for (format, arguments, output) in [
        ("%d", "\"x\"", "%!d(string=x)"),
        ("%s %s %s", "1 1.5 true", "%!s(int=1) %!s(float64=1.5) %!s(bool=true)"),
        ("%s %d", "nil nil", "%!s(<nil>) %!d(<nil>)"),
        ("%z %!", "1", "%!z(int=1) %!!(MISSING)"),
        ("%d %d", "1", "1 %!d(MISSING)"),
        ("%d", "1 \"a\" nil", "1%!(EXTRA string=a, <nil>)"),
        ("%", "", "%!(NOVERB)"),
        ("%d", "(list \"a\" 1)", "[%!d(string=a) 1]"),
        ("%*d %[3]d %[x]d", "\"a\" 1", "%!(BADWIDTH)1 %!d(BADINDEX) %!d(BADINDEX)"),
        ("%5d", "\"a\"", "%!d(string=    a)"),
    ] {
        print(&[(&format!("{{{{printf `{format}` {arguments}}}}}"), output)]);
    }
}

#[test]
fn texts_are_escaped_for_other_languages() {
    print(&[
        (
            r#"{{html "<a href='x'>\"&\"</a>"}}"#,
            "&lt;a href=&#39;x&#39;&gt;&#34;&amp;&#34;&lt;/a&gt;",
        ),
        (
            r#"{{js "it's \"<a>\" \\ = & \n é"}}"#,
            r#"it\'s \"\u003Ca\u003E\" \\ \u003D \u0026 \u000A é"#,
        ),
        (r#"{{urlquery "a b&c=/é~"}}"#, "a+b%26c%3D%2F%C3%A9~"),
        (r#"{{quote "a\n\x01\u00a0é\u200b" 1 nil "b"}}"#, r#""a\n\x01\u00a0é\u200b" "1" "b""#),
        (r#"{{squote "a" nil 1}} {{quote}}"#, "'a' '1' "),
    ]);
}
