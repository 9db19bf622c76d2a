package web_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// frame is a frame of a link at a second of a minute.
func frame(second int, direction, kind, bytes string) object {
	return object{"at": fmt.Sprintf("2026-11-22T08:00:%02d.082Z", second), "direction": direction, "kind": kind, "bytes": bytes}
}

func (s *session) tellFrames(concentrator string, full bool, frames ...object) {
	if frames == nil {
		frames = []object{}
	}
	s.say(object{"type": "frames", "concentrator": concentrator, "full": full, "gateway": "gw-1", "frames": frames})
}

// hearFrames waits for the client's wish to get a concentrator's frames, or none any more.
func (s *session) hearFrames(concentrator string, subscribe bool) {
	s.t.Helper()
	if m := s.hear("frames"); m["concentrator"] != concentrator || m["subscribe"] != subscribe {
		s.t.Fatalf("the client said %v, want subscribe %v for %s", m, subscribe, concentrator)
	}
}

func TestFramesAreWatchedAcrossConnections(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p := openClient(t, e)
	s := e.next()
	p.run(`window.told = { a: [], b: [] };
		window.stop = {
			a: client.watchFrames("101", (it) => { told.a.push(it); throw new Error("a page's own mistake"); }),
			b: client.watchFrames("102", (it) => told.b.push(it)),
		}; addEventListener("error", (event) => event.preventDefault()); 0`)
	s.hearFrames("101", true)
	s.hearFrames("102", true)
	s.tellFrames("101", true, frame(1, "down", "request", "FE68"))
	s.tellFrames("101", false, frame(2, "up", "answer", "6816"))
	s.tellFrames("103", true, frame(3, "up", "noise", "00"))
	s.say(object{"type": "frames", "concentrator": "102", "full": true, "frames": []object{}, "error": object{"code": "concentrator_offline", "message": "away", "retry": true}})
	p.until(`told.b.length === 1`)
	check(p, `told.a.map(({ full, frames, gateway, error }) => [full, frames.map((f) => f.bytes).join(), gateway, error === undefined].join(" "))`, []string{"true FE68 gw-1 true", "false 6816 gw-1 true"})
	check(p, `[told.b[0].frames.length, told.b[0].error.code].join(" ")`, "0 concentrator_offline")

	s.conn.CloseNow()
	s = e.next()
	s.hearFrames("101", true)
	s.hearFrames("102", true)

	// A second watcher of a link gets all its frames, and the first keeps the link when the second goes.
	p.run(`window.second = []; window.stopSecond = client.watchFrames("102", (it) => second.push(it)); 0`)
	s.hearFrames("102", true)
	s.tellFrames("102", true, frame(4, "up", "heartbeat", "4C"))
	p.until(`second.length === 1 && told.b.length === 2`)
	p.run(`stopSecond(); stopSecond(); stop.a(); stop.b(); stop.b()`)
	s.hearFrames("101", false)
	s.hearFrames("102", false)
	s.tellFrames("102", false, frame(5, "up", "heartbeat", "4C"))
	p.run(`client.read({ concentrator: "101", meter: "1" }).catch(() => {}); 0`)
	s.failed(s.hear("read"), "internal", "the end", true)
	p.run(`client.read({ concentrator: "101", meter: "2" }).catch(() => {}); 0`)
	s.hear("read")
	check(p, `[told.b.length, second.length].join(" ")`, "2 1")
}

// rows is a script for the frames that are shown, each as its traits.
const rows = `[...document.querySelectorAll("[data-testid=frame-row]")].map((row) => [row.dataset.kind, row.dataset.direction, row.querySelector("code").textContent,
	row.querySelector(".frame-count").textContent].filter(Boolean).join(" "))`

func (p *page) untilRows(want ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`JSON.stringify(%s) === %s`, rows, quoted(want)))
}

func quoted(texts []string) string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = fmt.Sprintf("%q", text)
	}
	return "'[" + strings.Join(out, ",") + "]'"
}

const (
	framesButton = `[data-testid=frames-button-101]`
	frameLog     = `document.querySelector("[data-testid=frame-log]")`
	logState     = `document.querySelector("[data-testid=frame-log-state]")`
)

// openFrameLog opens the console with the log of 101.
func openFrameLog(t *testing.T, e *edge) (*page, *session) {
	t.Helper()
	p, s := openConsole(t, e, "/")
	check(p, frameLog+`.checkVisibility()`, false)
	p.do(chromedp.Click(framesButton))
	s.hearFrames("101", true)
	check(p, frameLog+`.checkVisibility()`, true)
	check(p, logState+`.dataset.state`, "waiting")
	return p, s
}

func TestTheConsoleShowsFramesAsTheyGo(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openFrameLog(t, e)
	request := frame(1, "down", "request", "FEFE68")
	request["meaning"] = "<img src=x onerror=alert(1)>"
	s.tellFrames("101", true, frame(0, "up", "registration", "4C4F47"), request)
	p.untilRows("request down FE FE 68", "registration up 4C 4F 47")
	check(p, logState+`.dataset.state`, "live")
	check(p, `[...document.querySelectorAll(".frame-meaning")].map((m) => m.textContent)`, []string{"<img src=x onerror=alert(1)>", `"LOG"`})
	check(p, `document.querySelector(".frame-way").getAttribute("aria-label")`, "to the concentrator")
	check(p, `/^(\S+ )?\d\d:\d\d:01\.082$/.test(document.querySelector(".frame-time").textContent.replace(",", ""))`, true)

	s.tellFrames("101", false, frame(2, "up", "answer", "6816"))
	s.tellFrames("101", false, frame(3, "up", "heartbeat", "4C"))
	p.untilRows("heartbeat up 4C", "answer up 68 16", "request down FE FE 68", "registration up 4C 4F 47")
	// Equal ones in a row are one row with a count, unless the one before it was another.
	p.run(`window.kept = document.querySelector("[data-kind=heartbeat]"); 0`)
	again := frame(9, "up", "heartbeat", "4C")
	again["count"] = 7
	s.tellFrames("101", false, again)
	p.untilRows("heartbeat up 4C × 7", "answer up 68 16", "request down FE FE 68", "registration up 4C 4F 47")
	check(p, `kept === document.querySelector("[data-kind=heartbeat]")`, true)
	check(p, `document.querySelector(".frame-time").textContent.includes(":09.")`, true)

	s.tellFrames("101", true, again)
	p.untilRows("heartbeat up 4C × 7")
	p.do(chromedp.Click(`[data-testid=language]`))
	check(p, `document.querySelector(".frame-kind").firstChild.textContent`, "心跳")
	p.do(chromedp.Click(framesButton)) // closes what it opened
	s.hearFrames("101", false)
	check(p, frameLog+`.checkVisibility()`, false)
}

func TestTheFrameLogPausesClearsAndHidesHeartbeats(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openFrameLog(t, e)
	s.tellFrames("101", true, frame(1, "down", "request", "01"), frame(2, "up", "heartbeat", "4C"))
	p.untilRows("heartbeat up 4C", "request down 01")
	p.do(chromedp.Click(`[data-testid=frame-log-heartbeats]`))
	p.untilRows("request down 01")

	p.do(chromedp.Click(`[data-testid=frame-log-pause]`))
	s.tellFrames("101", false, frame(3, "up", "answer", "02"), frame(4, "up", "late", "03"))
	p.until(logState + `.textContent === "paused, 2 new"`)
	check(p, rows, []string{"request down 01"})
	p.do(chromedp.Click(`[data-testid=frame-log-pause]`))
	p.untilRows("late up 03", "answer up 02", "request down 01")
	p.do(chromedp.Click(`[data-testid=frame-log-heartbeats]`))
	p.untilRows("late up 03", "answer up 02", "heartbeat up 4C", "request down 01")

	p.do(chromedp.Click(`[data-testid=frame-log-clear]`))
	p.untilRows()
	// What was cleared does not come back with what the server tells anew.
	s.tellFrames("101", true, frame(4, "up", "late", "03"), frame(5, "up", "foreign", "04"))
	p.untilRows("foreign up 04")
	p.do(chromedp.Click(`[data-testid=frame-log-close]`))
	s.hearFrames("101", false)
	check(p, frameLog+`.checkVisibility()`, false)
}

func TestTheFrameLogKeepsTwoHundredRows(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openFrameLog(t, e)
	frames := make([]object, 205)
	for i := range frames {
		frames[i] = frame(i%60, "up", "noise", fmt.Sprintf("%04X", i))
	}
	s.tellFrames("101", true, frames...)
	p.until(`document.querySelectorAll("[data-testid=frame-row]").length === 200`)
	s.tellFrames("101", false, frame(1, "up", "answer", "FFFF"))
	p.until(`document.querySelector("[data-testid=frame-row]").dataset.kind === "answer"`)
	check(p, rows+`.length`, 200)
	check(p, rows+`.at(-1)`, "noise up 00 06")
}

func TestTheFrameLogSaysWhyNothingComes(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openFrameLog(t, e)
	s.tellFrames("101", true)
	p.until(logState + `.dataset.state === "live"`)
	check(p, `document.querySelector("#frame-rows").textContent`, value[string](p, `import("/console/words.en.js").then(({ en }) => en.frameLogEmpty)`))
	s.tellFrames("101", false, frame(1, "down", "request", "01"))
	p.untilRows("request down 01")
	s.say(object{"type": "frames", "concentrator": "101", "full": true, "frames": []object{}, "error": object{"code": "concentrator_offline", "message": "away", "retry": true}})
	p.until(logState + `.dataset.state === "error"`)
	check(p, logState+`.textContent`, "The concentrator is offline")
	check(p, rows, []string{"request down 01"}) // why it is away may show in what came last

	s.conn.CloseNow()
	p.until(logState + `.dataset.state === "waiting"`)
	s = e.next()
	s.hear("presence")
	s.hearFrames("101", true)
	s.tellFrames("101", true, frame(2, "up", "answer", "02"))
	p.untilRows("answer up 02")
	check(p, logState+`.dataset.state`, "live")

	p.do(chromedp.Click(`[data-testid=frames-button-104]`)) // another takes its place
	s.hearFrames("101", false)
	s.hearFrames("104", true)
	p.untilRows()
	check(p, `[101, 104].map((c) => document.querySelector("[data-testid=frames-button-" + c + "]").getAttribute("aria-pressed"))`, []string{"false", "true"})
}

func TestTheFrameLogOnAPhone(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/")
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	p.until(`document.getElementById("links").checkVisibility() && !document.getElementById("meters").checkVisibility()`)
	p.do(chromedp.Click(framesButton))
	s.hearFrames("101", true)
	noise := frame(1, "up", "noise", strings.Repeat("00FFA55A", 64))
	noise["meaning"] = strings.Repeat("x", 200)
	s.tellFrames("101", true, noise, frame(2, "down", "request", "FE68"))
	p.until(rows + `.length === 2`)
	check(p, `document.getElementById("links").checkVisibility()`, false)
	check(p, `document.documentElement.scrollWidth <= innerWidth && document.querySelector("#frame-rows").scrollWidth <= innerWidth`, true)
	check(p, frameLog+`.getBoundingClientRect().top >= 0 && `+frameLog+`.getBoundingClientRect().top < innerHeight`, true)
}

func TestAQueuedReadSaysHowLongItWaits(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p, s := openConsole(t, e, "/#101/101001")
	p.do(chromedp.Click(`[data-testid=read-button]`))
	read := s.hear("read")
	queued := `document.querySelector("[data-testid=stages] [data-stage=queued] .stage-word")?.textContent`
	for _, row := range []struct {
		stage object
		words string
	}{
		{object{"position": 4}, "Queued, no. 4"},
		{object{"position": 3, "wait_ms": 2900}, "Queued, no. 3, about 3 s"},
		{object{"position": 1, "wait_ms": 20}, "Queued, no. 1, about 1 s"},
	} {
		s.answer(read, "queued", row.stage)
		p.until(fmt.Sprintf("%s === %q", queued, row.words))
	}
	p.do(chromedp.Click(`[data-testid=language]`))
	check(p, queued, "排队 第 1 位，约 1 秒")
	s.done(read, "1.00")
	p.untilStage("done")
}
