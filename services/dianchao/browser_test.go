package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/dianchao/dianchao/pkg/meter"
)

// chromium opens a real browser with a window of a laptop.
func chromium(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1366, 768), chromedp.Flag("accept-lang", "zh-CN"))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	browser, stop := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(stop)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("Chromium does not start, run make tools: %v", err)
	}
	limited, stop := context.WithTimeout(browser, 2*patience)
	t.Cleanup(stop)
	return limited
}

func TestAPageOfTheOriginalKindWorksUnchanged(t *testing.T) {
	s := boot(t, nil)
	pages := httptest.NewServer(http.FileServer(http.Dir("testdata")))
	defer pages.Close()
	browser := chromium(t)
	do(t, browser,
		chromedp.Navigate(pages.URL+"/article.html?ws="+strings.Replace(s.edge.URL(), "http:", "ws:", 1)),
		chromedp.WaitVisible(`//li[text()="连接成功"]`),
		chromedp.Click("#read"),
	)
	answer := textOf(t, browser, `//li[contains(text(),"AccumVal")]`)
	do(t, browser, chromedp.SetValue("#concentrator", "999"), chromedp.Click("#read"))
	refused := textOf(t, browser, `//li[contains(text(),"999")]`)
	if !strings.HasPrefix(answer, `{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":`) || !strings.HasSuffix(answer, `,"IsDownCommand":true}`) {
		t.Fatalf("the answer is %s", answer)
	}
	if !strings.Contains(refused, "集中器 999 不在线") {
		t.Fatalf("the refusal is %s", refused)
	}
}

func hook(name string) string { return `[data-testid="` + name + `"]` }

func do(t *testing.T, browser context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(browser, steps...); err != nil {
		t.Fatal(err)
	}
}

func textOf(t *testing.T, browser context.Context, selector string) string {
	t.Helper()
	text, err := chromedp.Run(browser, chromedp.TextContent(selector))
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	return text
}

func TestTheConsole(t *testing.T) {
	s := boot(t, nil)
	browser := chromium(t)
	do(t, browser,
		chromedp.Navigate(s.edge.URL()),
		chromedp.WaitVisible(hook("concentrator-101")+`[data-state="up"]`),
		chromedp.SendKeys(hook("concentrator-field"), "101"),
		chromedp.SendKeys(hook("meter-field"), "101001"),
		chromedp.Click(hook("read-button")),
		chromedp.WaitVisible(hook("result")+`[data-stage="done"][data-meter="101001"]`),
	)
	want := read(t, s, `{"concentrator":"101","meter":"101001","max_age_ms":3600000}`)
	if volume := textOf(t, browser, hook("volume")); !strings.Contains(volume, want.Reading.Volume.String()) {
		t.Fatalf("the console shows %q, the meter said %s", volume, want.Reading.Volume)
	}
	frames := strings.Join(strings.Fields(textOf(t, browser, hook("frames"))), "")
	if !strings.Contains(frames, want.Frames.Received.String()) {
		t.Fatalf("the console shows the frames %q, received was %s", frames, want.Frames.Received)
	}

	s.simulator.Unplug(must(meter.ParseConcentratorID("101")))
	do(t, browser,
		chromedp.WaitVisible(hook("concentrator-101")+`[data-state="down"]`),
		chromedp.Click(hook("read-button")),
		chromedp.WaitVisible(hook("result")+`[data-stage="failed"][data-meter="101001"]`),
		chromedp.WaitVisible(hook("error-advice")),
	)
	if reason := textOf(t, browser, hook("error-reason")); !strings.Contains(reason, "不在线") {
		t.Fatalf("the console says %q", reason)
	}
}
