package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dianchao/dianchao/pkg/meter"
)

// cuttable passes connections on to an address until it cuts them.
type cuttable struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu   sync.Mutex
	open []net.Conn
}

func newCuttable(t *testing.T, target string) *cuttable {
	t.Helper()
	c := &cuttable{listener: must(net.Listen("tcp", "127.0.0.1:0")), target: target}
	c.wait.Go(c.accept)
	t.Cleanup(func() { c.listener.Close(); c.cut(); c.wait.Wait() })
	return c
}

func (c *cuttable) accept() {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", c.target)
		if err != nil {
			near.Close()
			continue
		}
		c.mu.Lock()
		c.open = append(c.open, near, far)
		c.mu.Unlock()
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			to.Close()
		}
		c.wait.Go(func() { pass(far, near) })
		c.wait.Go(func() { pass(near, far) })
	}
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}

func TestABrowserWhoseConnectionBreaksMidReadGetsTheAnswerOfTheSameExchange(t *testing.T) {
	s := boot(t, func(c *standaloneCommand) { c.Simulator.Delay = 2 * time.Second })
	wire := newCuttable(t, strings.TrimPrefix(s.edge.URL(), "http://"))
	browser := chromium(t)
	do(t, browser,
		chromedp.Navigate("http://"+wire.listener.Addr().String()+"/#101/101001"),
		chromedp.WaitVisible(hook("concentrator-101")+`[data-state="up"]`),
		chromedp.Click(hook("read-button")),
		chromedp.WaitVisible(hook("result")+`[data-stage="sent"]`),
	)
	wire.cut()
	do(t, browser, chromedp.WaitVisible(hook("result")+`[data-stage="done"][data-meter="101001"]`))
	if n := s.simulator.Frames(must(meter.ParseConcentratorID("101")), must(meter.ParseAddress("101001"))); n != 1 {
		t.Fatalf("%d frames reached the meter", n)
	}
}
