package web_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/dianchao/dianchao/pkg/meter"
)

// openConsole loads the console in English and answers its presence subscription with 101 up and 104 down.
func openConsole(t *testing.T, e *edge, path string) (*page, *session) {
	t.Helper()
	p := open(t, e.URL+path)
	s := e.next()
	s.hear("presence")
	s.say(object{"type": "presence", "full": true, "links": []object{
		{"concentrator": "101", "state": "up", "since": "2026-11-22T08:00:00Z", "gateway": "gw-1", "driver": "cjt188"},
		{"concentrator": "104", "state": "down", "since": "2026-11-22T08:05:00Z", "gateway": "gw-1", "driver": "cjt188", "reason": "<b>cut</b>"},
	}})
	p.until(`document.querySelector("[data-testid=concentrator-104]") !== null`)
	if value[string](p, `document.documentElement.lang`) != "en" {
		p.do(chromedp.Click(`[data-testid=language]`))
	}
	return p, s
}

func TestTheConsoleOnAPhone(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/")
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	shown := func(id string) string { return fmt.Sprintf(`document.getElementById(%q).checkVisibility()`, id) }
	p.until(shown("links") + " && !" + shown("meters"))
	p.do(chromedp.Click(`[data-testid=concentrator-101] button`))
	p.until("!" + shown("links") + " && " + shown("meters"))
	p.do(chromedp.Click(`[data-testid=meter-101001] button`))
	s.done(s.hear("read"), "1.00")
	p.untilStage("done")
	check(p, "!"+shown("links")+" && !"+shown("meters"), true)
	check(p, `document.documentElement.scrollWidth <= innerWidth`, true)
}

// text is a script for the text of the newest element with this hook.
func text(hook string) string {
	return fmt.Sprintf(`document.querySelector("[data-testid=%s]").textContent`, hook)
}

func (p *page) untilStage(stage string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelector("[data-testid=result]")?.dataset.stage === %q`, stage))
}

func TestTheConsoleReadsAMeter(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/")
	check(p, `["101", "104"].map((c) => document.querySelector("[data-testid=concentrator-" + c + "]").dataset.state)`, []string{"up", "down"})
	check(p, `document.querySelector("[data-testid=concentrator-104]").textContent.includes("<b>cut</b>")`, true)

	p.do(chromedp.Click(`[data-testid=concentrator-101] button`), chromedp.SendKeys(`[data-testid=meter-field]`, "101007\r"))
	read := s.hear("read")
	if read["concentrator"] != "101" || read["meter"] != "101007" {
		t.Fatalf("the console asked %v", read)
	}
	s.answer(read, "accepted", nil)
	s.answer(read, "queued", object{"position": 2})
	s.answer(read, "sent", nil)
	p.untilStage("sent")
	s.done(read, "00123.4500")
	p.untilStage("done")
	check(p, text("volume"), "00123.4500")
	check(p, `document.querySelector("[data-testid=result]").dataset.id`, read["id"].(string))
	check(p, `[...document.querySelectorAll("[data-testid=stages] li")].map((li) => li.dataset.stage)`, []string{"asked", "accepted", "queued", "sent", "done"})
	check(p, `[...document.querySelectorAll("[data-testid=frames] code")].map((code) => code.textContent)`, []string{"FE FE 68 10", "FE 68 10 16"})
	check(p, `document.querySelector("[data-fact=battery]").textContent`, "Batterylow")
	check(p, `document.getElementById("announcer").textContent`, "Meter 101007: cumulative volume 00123.4500 cubic metres")
	check(p, `location.hash`, "#101/101007")

	p.do(chromedp.Click(`[data-testid=meter-101001] button`)) // one click, from the operator's list
	if read := s.hear("read"); read["meter"] != "101001" {
		t.Errorf("the console asked %v", read)
	}
	check(p, `document.querySelectorAll("[data-testid=result]").length`, 2)
}

func TestTheConsoleSaysWhyNot(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/#104/104001")
	check(p, `["concentrator-field", "meter-field"].map((f) => document.querySelector("[data-testid=" + f + "]").value)`, []string{"104", "104001"})
	p.do(chromedp.Click(`[data-testid=read-button]`))
	first := s.hear("read")
	s.failed(first, "concentrator_offline", "<img src=x onerror=alert(1)>", true)
	p.untilStage("failed")
	check(p, text("error-reason"), "The concentrator is offline")
	check(p, text("error-advice"), value[string](p, `import("/console/words.en.js").then(({ en }) => en.codes.concentrator_offline.advice)`))
	check(p, `document.querySelector(".detail").textContent.includes("<img src=x onerror=alert(1)>")`, true)
	check(p, `document.querySelector(".last-seen").textContent.includes("<b>cut</b>")`, true)

	p.do(chromedp.Click(`[data-testid=retry-button]`))
	second := s.hear("read")
	if second["id"] == first["id"] || second["meter"] != "104001" {
		t.Errorf("trying again asked %v after %v", second, first)
	}
	s.failed(second, "meter_refused", "error 03", false)
	p.untilStage("failed")
	check(p, `document.querySelector("[data-testid=result]").querySelector("[data-testid=retry-button]") === null`, true)

	p.do(chromedp.Click(`[data-testid=language]`))
	check(p, text("error-reason"), "水表拒绝了请求")
	check(p, `[document.documentElement.lang, localStorage.getItem("dianchao.language")]`, []string{"zh-CN", `"zh"`})
}

func TestTheConsoleCancelsAndSaysThatItReconnects(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/#101/101001")
	p.do(chromedp.Click(`[data-testid=read-button]`))
	read := s.hear("read")
	s.answer(read, "queued", object{"position": 1})
	p.untilStage("queued")
	s.conn.CloseNow()
	p.until(`document.querySelector("[data-testid=connection]").dataset.state === "reconnecting"`)
	p.until(`document.querySelector(".note").textContent.includes("same id")`)

	s = e.next()
	s.hear("presence")
	if again := s.hear("read"); again["id"] != read["id"] {
		t.Errorf("asked %v, want the id %v", again, read["id"])
	}
	p.until(`document.querySelector("[data-testid=connection]").dataset.state === "open"`)
	p.do(chromedp.Click(`[data-testid=cancel-button]`))
	s.hear("cancel")
	s.failed(read, "cancelled", "withdrawn", false)
	p.untilStage("failed")
	check(p, text("error-reason"), "Cancelled")
	check(p, `document.querySelectorAll("[data-testid=again-button]").length`, 1)
}

func TestTheConsoleRefusesWhatCannotBeAnAddress(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/")
	for typed, says := range map[string]string{
		"":                          "Enter the meter's address.",
		"10 1":                      "not allowed",
		"10.1":                      "not allowed",
		strings.Repeat("1", 33):     "not allowed",
		"\u6c34\u8868":              "not allowed",
		"<script>alert(1)</script>": "not allowed",
	} {
		p.run(fmt.Sprintf(`document.getElementById("concentrator").value = "101"; document.getElementById("meter").value = %q; document.querySelector("[data-testid=read-button]").click()`, typed))
		if got := value[string](p, `document.getElementById("refusal").textContent`); !strings.Contains(got, says) {
			t.Errorf("%q: the console says %q, want %q", typed, got, says)
		}
	}
	// A Chinese input method leaves full-width digits: they are the same address.
	p.run(`document.getElementById("meter").value = "\uff11\uff10\uff11001 "; document.querySelector("[data-testid=read-button]").click()`)
	if read := s.hear("read"); read["meter"] != "101001" {
		t.Errorf("the console asked %v", read)
	}
}

func TestTheConsoleKeepsAHundredCards(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/#101/101001")
	for range 103 {
		p.run(`document.querySelector("[data-testid=read-button]").click()`)
		s.done(s.hear("read"), "1.00")
		p.untilStage("done")
	}
	check(p, `document.querySelectorAll("[data-testid=result]").length`, 100)
	check(p, `document.getElementById("results-tally").textContent`, "103")
}

func TestEveryCodeHasWordsInBothLanguages(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := open(t, e.URL+"/blank")
	codes := map[string]bool{"no_answer": true, "closed": true}
	for _, code := range meter.Codes() {
		codes[code.String()] = true
	}
	for _, language := range []string{"zh", "en"} {
		words := value[map[string]object](p, fmt.Sprintf(`import("/console/words.%s.js").then((m) => m.%[1]s.codes)`, language))
		for code := range codes {
			if reason, advice := words[code]["reason"], words[code]["advice"]; reason == nil || reason == "" || advice == nil || advice == "" {
				t.Errorf("%s: the code %s has the reason %v and the advice %v", language, code, reason, advice)
			}
		}
		if len(words) != len(codes) {
			t.Errorf("%s has words for %d codes, there are %d", language, len(words), len(codes))
		}
	}
	check(p, `Promise.all([import("/console/words.zh.js"), import("/console/words.en.js")]).then(([{ zh }, { en }]) => {
		const slots = (words) => Object.entries(words).filter(([, text]) => typeof text === "string").map(([key, text]) => key + " " + [...text.matchAll(/\{\w+\}/g)].join()).sort();
		const [a, b] = [slots(zh), slots(en)];
		return [...a.filter((s) => !b.includes(s)), ...b.filter((s) => !a.includes(s))];
	})`, []string{})
}

func TestTheExportIsWhatAnOfficeOpensRight(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := open(t, e.URL+"/blank")
	file := value[string](p, `import("/console/csv.js").then(({ csv }) => csv([
		{ id: "i1", askedAt: new Date(), concentrator: "101", meter: "00101001", name: "=1+1", endedMs: 52, answer: { stage: "done", source: "wire",
			reading: { volume_m3: "-0.50", settlement_m3: null, clock: null, status: { valve: null, battery: null }, raw_status: "1E05" }, frames: { sent: "6810", received: "681016" } } },
		{ id: "i2", askedAt: new Date(), concentrator: "101", meter: "20230500001234", name: "a \"b\", c", endedMs: 7, answer: { stage: "failed", error: { code: "meter_silent", message: "@x", retry: true } } },
	]))`)
	if !strings.HasPrefix(file, "\ufeff") {
		t.Error("the file has no byte order mark")
	}
	lines := strings.Split(strings.TrimSuffix(file, "\r\n"), "\r\n")
	if len(lines) != 3 {
		t.Fatalf("the file has %d lines: %q", len(lines), lines)
	}
	for line, cells := range map[int][]string{
		1: {`,"=""00101001""",`, `,'=1+1,`, `,-0.50,`, `,"=""1E05""",`, `,6810,`},
		2: {`,"=""20230500001234""",`, `,"a ""b"", c",`, `,meter_silent,`, `,'@x,`},
	} {
		for _, cell := range cells {
			if !strings.Contains(lines[line], cell) {
				t.Errorf("line %d has no cell %s: %s", line, cell, lines[line])
			}
		}
	}
}

func TestTheConsoleSaysWhatAReadWaitsFor(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/#104/104001")
	s.say(object{"type": "presence", "links": []object{{
		"concentrator": "104", "state": "down", "since": "2026-11-22T08:06:00Z", "gateway": "gw-1", "driver": "cjt188",
		"reason": "its gateway gw-1 stopped answering", "moving": true,
	}}})
	p.until(`document.querySelector("[data-testid=concentrator-104]").textContent.includes("its gateway gw-1 stopped answering")`)
	p.do(chromedp.Click(`[data-testid=read-button]`))
	read := s.hear("read")
	p.until(`document.querySelector(".note").textContent.includes("dial in again")`)
	p.do(chromedp.Click(`[data-testid=language]`))
	p.until(`document.querySelector(".note").textContent.includes("重新连上")`)
	p.until(`document.querySelector("[data-testid=concentrator-104]").textContent.includes("网关 gw-1 没有响应")`)
	s.done(read, "1.00")
	p.untilStage("done")
}
