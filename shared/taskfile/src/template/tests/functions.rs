use super::*;

#[test]
fn comparisons_need_values_of_one_type() {
    print(&[
        ("{{eq 1 1}} {{eq 1 2 1}} {{eq \"a\" \"b\"}} {{ne 1 2}}", "true true false true"),
        ("{{eq true true}} {{eq 1.5 1.5}} {{eq nil nil}} {{eq nil \"\"}}", "true true true false"),
        ("{{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1.5 2.5}}", "true true true false"),
        ("{{and 1 0 2}} {{and 1 2}} {{or 0 \"\" 3}} {{or 0 \"\"}}| {{not 0}}", "0 2 3 | true"),
        ("{{and false (index (list) 5)}} {{or 1 (fail \"no\")}}", "false 1"),
        ("{{true | and false}} {{true | or false}}", "false true"),
    ]);
}

#[test]
fn index_and_len_look_into_values() {
    print(&[
        ("{{index (list 1 (list 2 3)) 1 0}} {{index (dict \"a\" 1) \"a\"}}", "2 1"),
        ("{{index (dict) \"a\"}}|{{index (list 1)}}|{{index \"abc\" 1}}", "|[1]|98"),
        ("{{len \"é\"}} {{len (list 1 2)}} {{len (dict \"a\" 1)}}", "2 2 1"),
    ]);
}

#[test]
fn defaults_replace_what_is_empty() {
    print(&[
        (
            "{{default \"d\" \"\"}} {{default \"d\" 0}} {{default \"d\" \"x\"}} {{default \"d\"}}",
            "d d x d",
        ),
        (
            "{{coalesce \"\" 0 nil 2 3}}{{coalesce}} {{ternary \"a\" \"b\" true}} {{false | ternary \"a\" \"b\"}}",
            "2 a b",
        ),
        ("{{empty \"\"}} {{empty 1}} {{empty (list)}}", "true false true"),
        ("{{env \"HOME\"}}{{expandenv \"$HOME\"}}{{hello}}", "Hello!"),
    ]);
}

#[test]
fn texts_are_trimmed_and_cut() {
    print(&[
        ("{{trim \" a \\n\"}}|{{trimAll \"$.\" \"$5.$\"}}|{{trimall \"-\" \"-a-\"}}", "a|5|a"),
        (
            "{{trimPrefix \"v\" \"v1\"}} {{trimSuffix \".x\" \"a.x\"}} {{trimSuffix \"b\" \"a\"}}",
            "1 a a",
        ),
        ("{{nospace \" a b\\tc \"}} {{trunc 3 \"abcdef\"}} {{trunc 9 \"ab\"}}", "abc abc ab"),
        (
            "{{substr 1 3 \"abcd\"}} {{substr -1 2 \"abcd\"}} {{substr 2 -1 \"abcd\"}} {{substr 0 9 \"ab\"}}",
            "bc ab cd ab",
        ),
        (
            "{{repeat 3 \"ab\"}}{{repeat 0 \"a\"}}{{repeat 9 \"\"}} {{replace \"a\" \"bb\" \"aca\"}} {{replace \"\" \"-\" \"ab\"}}",
            "ababab bbcbb -a-b-",
        ),
        ("{{indent 2 \"a\\nb\"}}|{{nindent 1 \"a\"}}", "  a\n  b|\n a"),
        (
            "{{abbrev 5 \"hello world\"}} {{abbrev 3 \"hello\"}} {{abbrevboth 5 10 \"1234 5678 9123\"}}",
            "he... hello ...5678...",
        ),
        (
            "{{wrap 5 \"Hello World\"}}|{{wrapWith 5 \"\\t\" \"Hello World\"}}",
            "Hello\nWorld|Hello\tWorld",
        ),
        (
            "{{wrap 3 \"abcdef gh\"}}|{{wrapWith 3 \"-\" \"abcdef gh\"}}|{{wrap 3 \"\"}}",
            "abcdef\ngh|abc-def-gh|",
        ),
        (
            "{{cat \"a\" nil 1 \"b\"}} {{plural \"one\" \"many\" 1}} {{len \"ab\" | plural \"one\" \"many\"}}",
            "a 1 b one many",
        ),
        (
            "{{contains \"b\" \"abc\"}} {{hasPrefix \"a\" \"abc\"}} {{hasSuffix \"a\" \"abc\"}}",
            "true true false",
        ),
    ]);
}

#[test]
fn the_case_of_letters_changes() {
    print(&[
        (
            "{{upper \"aé ß\"}} {{lower \"AÉ\"}} {{title \"hello wORLD-x_y\"}} {{untitle \"First Try\"}}",
            "AÉ ß aé Hello WORLD-X_y first try",
        ),
        ("{{swapcase \"This Is\"}} {{initials \"First Try\"}}", "tHIS iS FT"),
        (
            "{{camelcase \"http_server\"}} {{camelcase \"_complex__case_\"}} {{camelcase \"some words\"}} {{camelcase \"\"}}{{camelcase \"___\"}}",
            "HttpServer _Complex_Case_ SomeWords ___",
        ),
        (
            "{{snakecase \"FirstName\"}} {{snakecase \"HTTPServer\"}} {{snakecase \"NoHTTPS\"}} {{snakecase \"GO PATH\"}}",
            "first_name http_server no_https go_path",
        ),
        (
            "{{snakecase \"HTTP20xOK\"}} {{snakecase \"http2xx\"}} {{snakecase \"Duration2m3s\"}} {{snakecase \"Bld4Floor3rd\"}} {{snakecase \"\"}}{{snakecase \"Ab-cD.é\"}} {{kebabcase \"FirstName\"}} {{kebabcase \"GO_PATH\"}}",
            "http_20x_ok http_2xx duration_2m3s bld4_floor_3rd ab_c_d.é first-name go-path",
        ),
    ]);
}

#[test]
fn texts_and_lists_are_converted() {
    print(&[
        ("{{$v := split \"$\" \"foo$bar\"}}{{$v._0}} {{$v._1}}{{$v._2}}", "foo bar"),
        (
            "{{splitn \"/\" 2 \"a/b/c\"}} {{splitList \"/\" \"a/b\"}} {{splitList \"\" \"aé\"}} {{splitn \"\" 2 \"abc\"}}",
            "map[_0:a _1:b/c] [a b] [a é] map[_0:a _1:bc]",
        ),
        (
            "{{len (splitList \"/\" \"\")}} {{len (splitList \"\" \"\")}} {{splitn \"/\" 0 \"a\"}} {{splitn \"/\" -1 \"a/b\"}}",
            "1 0 map[] map[_0:a _1:b]",
        ),
        ("{{join \"-\" (list 1 nil \"b\")}} {{join \"-\" \"x\"}} {{join \"-\" nil}}", "1-b x "),
        (
            "{{sortAlpha (list \"c\" 2 \"a\")}} {{sortAlpha 5}} {{toString 1 | kindOf}} {{toStrings (list 1 nil 2)}}",
            "[2 a c] [5] string [1 2]",
        ),
    ]);
}

#[test]
fn lists_are_taken_apart() {
    print(&[
        (
            "{{first (list 1 2 3)}}{{last (list 1 2 3)}}{{rest (list 1 2 3)}}{{initial (list 1 2 3)}}",
            "13[2 3][1 2]",
        ),
        ("{{first list}}{{last list}}{{rest list}}{{initial list}}", "[][]"),
        (
            "{{append (list 1) 2}}{{push (list 1) 2}}{{prepend (list 1) 0}}{{concat (list 1) (list 2 (list 3))}}",
            "[1 2][1 2][0 1][1 2 [3]]",
        ),
        (
            "{{reverse (list 1 2)}}{{uniq (list 1 \"a\" 1 \"a\" (list 1) (list 1))}}{{without (list 1 2 1) 1}}{{compact (list 1 0 \"\")}}",
            "[2 1][1 a [1]][2][1]",
        ),
        (
            "{{has 1 (list 1 2)}} {{has 3 (list 1 2)}} {{has 1 nil}} {{has 1 (list 1.0)}}",
            "true false false false",
        ),
        (
            "{{slice (list 1 2 3)}}{{slice (list 1 2 3) 1}}{{slice (list 1 2 3) 0 2}}{{slice (list)}}",
            "[1 2 3][2 3][1 2]",
        ),
    ]);
}

#[test]
fn maps_are_built_and_read() {
    print(&[
        (
            "{{dict \"a\" 1 2 \"b\" \"c\"}} {{hasKey (dict \"a\" nil) \"a\"}} {{hasKey nil \"a\"}}",
            "map[2:b a:1 c:] true false",
        ),
        (
            "{{keys (dict \"b\" 1 \"a\" 2) (dict \"c\" 3)}} {{values (dict \"b\" 1 \"a\" 2)}}",
            "[a b c] [2 1]",
        ),
        (
            "{{pluck \"a\" (dict \"a\" 1) (dict \"b\" 2) (dict \"a\" 3)}} {{pick (dict \"a\" 1 \"b\" 2) \"a\" \"c\"}} {{omit (dict \"a\" 1 \"b\" 2) \"a\"}}",
            "[1 3] map[a:1] map[b:2]",
        ),
        ("{{merge (dict \"a\" 1 \"b\" \"\") (dict \"a\" 2 \"b\" 3 \"c\" 4)}}", "map[a:1 b:3 c:4]"),
        (
            "{{mergeOverwrite (dict \"a\" 1 \"m\" (dict \"x\" 1)) (dict \"a\" 2 \"m\" (dict \"y\" 2))}}",
            "map[a:2 m:map[x:1 y:2]]",
        ),
        (
            "{{mergeOverwrite (dict \"a\" 1 \"l\" (list 1)) (dict \"a\" nil \"l\" list)}} {{merge (dict \"a\" 1) (dict \"a\" nil)}}",
            "map[a:<nil> l:[]] map[a:1]",
        ),
        (
            "{{merge (dict \"m\" (dict \"x\" 1)) (dict \"m\" (dict \"x\" 2 \"y\" 3))}} {{deepCopy (dict \"a\" 1)}}",
            "map[m:map[x:1 y:3]] map[a:1]",
        ),
    ]);
}

#[test]
fn a_map_in_a_variable_can_be_changed() {
    print(&[
        ("{{$d := dict \"a\" 1}}{{$_ := set $d \"b\" 2}}{{$d}}", "map[a:1 b:2]"),
        ("{{$d := dict \"a\" 1 \"b\" 2}}{{$_ := unset $d \"a\"}}{{$d}}", "map[b:2]"),
        ("{{$d := dict \"a\" 1}}{{$d = set $d \"b\" 2}}{{$d}}", "map[a:1 b:2]"),
        (
            "{{$d := dict}}{{range until 2}}{{$_ := set $d (toString .) .}}{{end}}{{$d}}",
            "map[0:0 1:1]",
        ),
        (
            "{{$d := dict}}{{$_ := merge $d (dict \"a\" 1)}}{{$_ := mergeOverwrite $d (dict \"a\" 2)}}{{$d}}",
            "map[a:2]",
        ),
        // Elsewhere, a changed copy is returned.
        ("{{$d := dict \"m\" (dict)}}{{set $d.m \"a\" 1}}{{$d}}", "map[a:1]map[m:map[]]"),
    ]);
}

#[test]
fn numbers_are_computed() {
    print(&[
        (
            "{{add 1 \"2\" 3.9}} {{add}} {{add1 \"x\"}} {{sub 5 3}} {{mul 2 \"3\" 4}} {{div 7 2}} {{mod -7 3}}",
            "6 0 1 2 24 3 -1",
        ),
        (
            "{{max 1 5 3}} {{biggest 2}} {{min 4 2 3}} {{int \"12\"}} {{int64 1.9}} {{int true}} {{int \"1.5\"}} {{float64 \"1.5\"}}",
            "5 2 2 12 1 1 0 1.5",
        ),
        (
            "{{ceil 1.1}} {{floor -1.1}} {{round 123.5555 3}} {{round 2.5 0}} {{round 123.2329999 2 0.3}} {{round \"1.25\" 1}}",
            "2 -2 123.556 3 123.23 1.3",
        ),
        (
            "{{until 3}} {{until -3}} {{untilStep 3 9 3}} {{untilStep 0 -5 -2}} {{untilStep 3 0 1}} {{untilStep 0 3 0}}",
            "[0 1 2] [0 -1 -2] [3 6] [0 -2 -4] [] []",
        ),
        (
            "{{atoi \"5\"}} {{atoi \"x\"}} {{atoi \"99999999999999999999\"}} {{toDecimal \"777\"}} {{toDecimal 755}} {{toDecimal 9}}",
            "5 0 9223372036854775807 511 493 0",
        ),
        (
            "{{add 9223372036854775807 1}} {{div (sub -9223372036854775807 1) -1}} {{int 1e300}}",
            "-9223372036854775808 -9223372036854775808 9223372036854775807",
        ),
    ]);
}

#[test]
fn types_have_their_names_in_go() {
    print(&[
        (
            "{{kindOf 1}} {{kindOf 1.5}} {{kindOf \"\"}} {{kindOf true}} {{kindOf list}} {{kindOf dict}} {{kindOf nil}}",
            "int float64 string bool slice map invalid",
        ),
        (
            "{{typeOf 1}} {{typeOf list}} {{typeOf dict}} {{typeOf nil}}",
            "int []interface {} map[string]interface {} <nil>",
        ),
        (
            "{{kindIs \"int\" 1}} {{typeIs \"string\" 1}} {{typeIsLike \"bool\" true}} {{deepEqual (list 1) (list 1)}} {{deepEqual 1 1.0}}",
            "true false true true false",
        ),
    ]);
}

#[test]
fn texts_are_encoded_and_digested() {
    print(&[
        ("{{b64enc \"coffee\"}} {{b64dec \"Y29mZmVl\\n\"}} {{b64enc nil}}", "Y29mZmVl coffee "),
        ("{{b32enc \"coffee\"}} {{b32dec \"MNXWMZTFMU======\"}}", "MNXWMZTFMU====== coffee"),
        ("{{sha1sum \"a\"}}", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        (
            "{{sha256sum \"a\"}} {{adler32sum \"Wikipedia\"}}",
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb 300286872",
        ),
        (
            "{{dict \"a\" (list 1 1.5 nil true \"<é\\n>\") \"b\" dict | toJson}}",
            r#"{"a":[1,1.5,null,true,"\u003cé\n\u003e"],"b":{}}"#,
        ),
        (
            "{{dict \"a\" (list 1) \"b\" list | toPrettyJson}}",
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}",
        ),
        (
            "{{toJson 1e6}} {{toJson 1e21}} {{toJson 1e-7}} {{toJson 0.00001}} {{toJson 3.0}}",
            "1000000 1e+21 1e-7 0.00001 3",
        ),
    ]);
}

#[test]
fn paths_are_cleaned_and_split() {
    print(&[
        ("{{base \"a/b.c\"}} {{base \"/\"}} {{base \"\"}} {{base \"a/\"}}", "b.c / . a"),
        ("{{dir \"/a/b/\"}} {{dir \"a\"}} {{dir \"/a\"}} {{dir \"a/../../b\"}}", "/a/b . / .."),
        (
            "{{clean \"a//./b/../c\"}} {{clean \"\"}} {{clean \"/../a\"}} {{clean \"../a/..\"}}",
            "a/c . /a ..",
        ),
        (
            "{{ext \"a/b.tar.gz\"}}|{{ext \"a.b/c\"}} {{isAbs \"/a\"}} {{isAbs \"a\"}}",
            ".gz| true false",
        ),
    ]);
}

#[test]
fn regular_expressions_are_those_of_go() {
    print(&[
        (
            "{{regexMatch `^v\\d+$` \"v12\"}} {{regexMatch `^\\d$` \"\u{663}\"}} {{regexMatch `(?i)ÉA` \"éa\"}}",
            "true false true",
        ),
        (
            "{{regexFind `a(b|c)+` \"xabcb\"}} {{regexFind `z` \"x\"}}|{{regexFindAll `a.` \"abacad\" 2}} {{regexFindAll `a` \"aa\" -1}}",
            "abcb |[ab ac] [a a]",
        ),
        (
            "{{regexReplaceAll `a(x*)b` \"-ab-axxb-\" \"${1}W\"}} {{regexReplaceAll `a(x*)b` \"-ab-axxb-\" \"$1W\"}} {{regexReplaceAllLiteral `a(x*)b` \"-ab-\" \"${1}\"}}",
            "-W-xxW- --- -${1}-",
        ),
        (
            "{{regexSplit `z+` \"pizza\" -1}} {{regexSplit `a` \"banana\" 2}} {{regexSplit `a` \"banana\" 0}} {{regexSplit `a` \"banana\" -1 | len}}",
            "[pi a] [b nana] [] 4",
        ),
        (
            "{{regexFind `[[:digit:]\\s-]+` \"a1 -2b\"}} {{regexFind `\\w+` \"é_a\"}} {{regexFind `[^\\W]+` \"-ab\"}} {{regexFind `\\bb\\b` \"a b\"}}",
            "1 -2 _a ab b",
        ),
        (
            "{{regexFind `[[&&~]+` \"a[&~\"}} {{regexFind `{x}` \"{x}\"}} {{regexFind `\\Qa.b\\E.` \"a.bc\"}} {{regexFind `\\x{41}\\101` \"AA\"}} {{regexFind `[]a]+` \"]a\"}} {{regexFind `\\<a\\>` \"<a>\"}}",
            "[&~ {x} a.bc AA ]a <a>",
        ),
        (
            "{{regexReplaceAll `` \"ab\" \"-\"}} {{regexReplaceAll `é|\\B` \"aéb\" \"-\"}}",
            "-a-b- a-b",
        ),
    ]);
}

#[test]
fn versions_are_compared() {
    print(&[(
        "{{$v := semver \"v1.2.3-beta.1+c0ff33\"}}{{$v.Major}} {{$v.Minor}} {{$v.Patch}} {{$v.Prerelease}} {{$v.Metadata}} {{$v.Original}}",
        "1 2 3 beta.1 c0ff33 v1.2.3-beta.1+c0ff33",
    )]);
    for (constraint, version, holds) in [
        ("1.2.3", "1.2.3", true),
        ("=1.2", "1.2.9", false),
        ("1.2", "1.2.0", true),
        ("1.x", "1.9.0", true),
        ("1", "1.9.0", true),
        ("1.2.x", "1.3.0", false),
        ("*", "1.3.0", true),
        ("!=1.2.3", "1.2.4", true),
        ("!=1.x", "1.2.4", false),
        (">1.2, <2", "1.9.0", true),
        (">=1.2,<=1.4", "1.5.0", false),
        ("<2.x", "2.5.0", true),
        ("~1.2.3", "1.2.9", true),
        ("~1.2.3", "1.3.0", false),
        ("~>1", "1.9.0", true),
        ("^1.2.0", "1.9.0", true),
        ("^1.2.0", "2.0.0", false),
        ("1.2 - 1.4.5", "1.3.0", true),
        ("1.2 - 1.4.5", "1.4.6", false),
        ("^1 || ^3", "3.1.0", true),
        (">=1.0.0", "1.2.0-beta", false),
        (">=1.0.0-0", "1.2.0-beta", true),
        (">1.0.0-alpha.2", "1.0.0-alpha.10", true),
        (">1.0.0-alpha", "1.0.0-alpha.1", true),
        (">1.0.0-2", "1.0.0-a", true),
    ] {
        print(&[(
            &format!("{{{{semverCompare \"{constraint}\" \"{version}\"}}}}"),
            &holds.to_string(),
        )]);
    }
}

#[test]
fn urls_are_parsed_and_joined() {
    print(&[
        (
            "{{urlParse \"proto://user:pass%20word@host:80/pa%20th?key=val%20ue#frag\"}}",
            "map[fragment:frag host:host:80 hostname:host opaque: path:/pa th query:key=val%20ue scheme:proto userinfo:user:pass%20word]",
        ),
        (
            "{{(urlParse \"something\").path}} {{(urlParse \"mailto:a@b\").opaque}} {{(urlParse \"//h/p\").host}} {{(urlParse \"http://[::1]:80\").hostname}}",
            "something a@b h ::1",
        ),
        (
            "{{urlJoin (dict \"fragment\" \"f\" \"host\" \"host:80\" \"path\" \"/pa th\" \"query\" \"q\" \"scheme\" \"proto\" \"userinfo\" \"a:b\")}}",
            "proto://a:b@host:80/pa%20th?q#f",
        ),
        (
            "{{urlJoin (urlParse \"proto://host:80/path?q#f\")}} {{urlJoin (dict \"path\" \"a:b\")}} {{urlJoin (dict \"host\" \"h\" \"path\" \"p\")}}",
            "proto://host:80/path?q#f ./a:b //h/p",
        ),
    ]);
}
