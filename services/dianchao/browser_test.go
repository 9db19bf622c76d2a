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
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1366, 768), chromedp.Flag("lang", "zh-CN"))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	browser, stop := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(stop)
	browser, stop = context.WithTimeout(browser, 2*patience)
	t.Cleanup(stop)
	if err := chromedp.Run(browser); err != nil {
		t.Fatalf("Chromium does not start, run make tools: %v", err)
	}
	return browser
}

func TestAPageOfTheOriginalKindWorksUnchanged(t *testing.T) {
	s := boot(t, nil)
	pages := httptest.NewServer(http.FileServer(http.Dir("testdata")))
	defer pages.Close()
	var answer, refused string
	err := chromedp.Run(chromium(t),
		chromedp.Navigate(pages.URL+"/article.html?ws="+strings.Replace(s.edge.URL(), "http:", "ws:", 1)),
		chromedp.WaitVisible(`//li[text()="连接成功"]`),
		chromedp.Click("#read"),
		chromedp.Text(`//li[contains(text(),"AccumVal")]`, &answer),
		chromedp.SetValue("#concentrator", "999"),
		chromedp.Click("#read"),
		chromedp.Text(`//li[contains(text(),"999")]`, &refused),
	)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(answer, `{"ConcentratorNo":"101","WaterMtrAddress":"101001","AccumVal":`) || !strings.HasSuffix(answer, `,"IsDownCommand":true}`) {
		t.Fatalf("the answer is %s", answer)
	}
	if !strings.Contains(refused, "集中器 999 不在线") {
		t.Fatalf("the refusal is %s", refused)
	}
}

func hook(name string) string { return `[data-testid="` + name + `"]` }

func TestTheConsole(t *testing.T) {
	s := boot(t, nil)
	var volume, reason, frames string
	browser := chromium(t)
	err := chromedp.Run(browser,
		chromedp.Navigate(s.edge.URL()),
		chromedp.WaitVisible(hook("concentrator-101")+`[data-state="up"]`),
		chromedp.SendKeys(hook("concentrator-field"), "101"),
		chromedp.SendKeys(hook("meter-field"), "101001"),
		chromedp.Click(hook("read-button")),
		chromedp.WaitVisible(hook("result")+`[data-stage="done"][data-meter="101001"]`),
		chromedp.Text(hook("volume"), &volume),
		chromedp.TextContent(hook("frames"), &frames),
	)
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, s, `{"concentrator":"101","meter":"101001","max_age_ms":3600000}`)
	if !strings.Contains(volume, want.Reading.Volume.String()) {
		t.Fatalf("the console shows %q, the meter said %s", volume, want.Reading.Volume)
	}
	if compact := strings.Join(strings.Fields(frames), ""); !strings.Contains(compact, want.Frames.Received.String()) {
		t.Fatalf("the console shows the frames %q, received was %s", frames, want.Frames.Received)
	}

	s.simulator.Unplug(must(meter.ParseConcentratorID("101")))
	err = chromedp.Run(browser,
		chromedp.WaitVisible(hook("concentrator-101")+`[data-state="down"]`),
		chromedp.Click(hook("read-button")),
		chromedp.WaitVisible(hook("result")+`[data-stage="failed"][data-meter="101001"]`),
		chromedp.Text(hook("error-reason"), &reason),
		chromedp.WaitVisible(hook("error-advice")),
	)
	if err != nil || !strings.Contains(reason, "不在线") {
		t.Fatalf("the console says %q: %v", reason, err)
	}
}
