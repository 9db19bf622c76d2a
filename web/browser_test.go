package web_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// chromium is one real browser for all tests; each test has a window of its own, with its own storage.
var chromium context.Context

func TestMain(m *testing.M) { os.Exit(withChromium(m)) }

func withChromium(m *testing.M) int {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		fmt.Fprintln(os.Stderr, "no Chromium in PATH: run make tools")
		return 1
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1366, 768),
		// A name that is not loopback's makes a page that is no secure context, as in a company's own network.
		chromedp.Flag("host-resolver-rules", "MAP meters.test 127.0.0.1"))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s does not start: %v\n", path, err)
		return 1
	}
	chromium = ctx
	return m.Run()
}

// page is a browser's page that a test drives.
type page struct {
	t   *testing.T
	ctx context.Context

	mu        sync.Mutex
	complains []string
}

// open loads a page. What the page complains of on its console, a breach of the content policy above all, fails the test.
func open(t *testing.T, address string) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, expire := context.WithTimeout(ctx, 3*patience)
	t.Cleanup(expire)
	p := &page{t: t, ctx: ctx}
	p.do(chromedp.Navigate("about:blank"))
	messages := chromedp.Console(ctx)
	var listener sync.WaitGroup
	listener.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			// A WebSocket that the test breaks or refuses is reported by the browser itself.
			if (m.Type == chromedp.ConsoleError || m.IsException()) && m.Source != "network" {
				p.mu.Lock()
				p.complains = append(p.complains, m.Text)
				p.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		expire()
		listener.Wait()
		if len(p.complains) > 0 {
			t.Errorf("the page complained: %q", p.complains)
		}
	})
	p.do(chromedp.Navigate(address))
	return p
}

// openClient loads a foreign page that makes a client, keeps its events, and wraps its promises as JSON.
func openClient(t *testing.T, e *edge) *page {
	t.Helper()
	p := open(t, e.URL+"/blank")
	p.run(`(async () => {
		const { Dianchao } = await import("/dianchao.js");
		window.events = [];
		window.stages = [];
		window.client = new Dianchao();
		for (const type of ["open", "close", "reconnecting", "draining", "error"]) client.addEventListener(type, ({ detail }) => events.push({ type, detail }));
		window.ask = (meter, more) => client.read({ concentrator: "101", meter, onStage: ({ stage }) => stages.push(stage), ...more })
			.then((answer) => ({ ok: true, volume: answer.reading.volume_m3 }), ({ code, message, retry }) => ({ ok: false, code, message, retry }));
	})()`)
	return p
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// run evaluates JavaScript and waits for its promise.
func (p *page) run(script string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](script, chromedp.EvalAwaitPromise))
}

// value evaluates JavaScript, waits for its promise and decodes its value.
func value[T any](p *page, script string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// until waits for an expression to become true.
func (p *page) until(expression string) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(patience))); err != nil {
		p.t.Fatalf("waiting for %s: %v", expression, err)
	}
}

// check compares what an expression is with what it should be.
func check[T any](p *page, expression string, want T) {
	p.t.Helper()
	if got := value[T](p, expression); !reflect.DeepEqual(got, want) {
		p.t.Errorf("%s is %v, want %v", expression, got, want)
	}
}

// outcome is how a read ended.
type outcome struct {
	OK      bool
	Volume  string
	Code    string
	Message string
	Retry   bool
}

func (p *page) outcome(promise string) outcome {
	p.t.Helper()
	return value[outcome](p, promise)
}

// otherHost is an address under a name that the browser does not trust.
func (e *edge) otherHost(path string) string {
	u, err := url.Parse(e.URL)
	if err != nil {
		e.t.Fatal(err)
	}
	return "http://meters.test:" + u.Port() + path
}
