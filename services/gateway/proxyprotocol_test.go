package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

func networks(all ...string) (n []Network) {
	for _, s := range all {
		n = append(n, Network{})
		if err := n[len(n)-1].UnmarshalText([]byte(s)); err != nil {
			panic(err)
		}
	}
	return n
}

// headerV2 is a header of version 2, with what the balancer may add in more.
func headerV2(command, family byte, addresses string, more []byte) string {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+len(more)))
	return string(b) + addresses + string(more)
}

const (
	local, proxy    = 0x20, 0x21
	unspec          = 0x00
	tcpOver4        = 0x11
	tcpOver6        = 0x21
	unixStream      = 0x31
	addresses4      = "\xC6\x33\x64\x07" + "\x0A\x00\x00\x01" + "\x9C\x40" + "\x1C\x14"
	addresses6      = "\x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x9C\x40" + "\x1C\x14"
	concentrator4   = "198.51.100.7:40000"
	concentrator6   = "[2001:db8::7]:40000"
	balancersOwn    = ""
	lineV1          = "PROXY TCP4 198.51.100.7 10.0.0.1 40000 7188\r\n"
	longestLineV1   = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
	typeNoop        = 0x04
	moreThanIsAhead = 2 * aheadBytes
)

var headers = []struct{ name, header, remote string }{
	{"v1 over IPv4", lineV1, concentrator4},
	{"v1 over IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 7188\r\n", concentrator6},
	{"v1 unknown", "PROXY UNKNOWN\r\n", balancersOwn},
	{"v1 unknown, the longest there is", longestLineV1, balancersOwn},
	{"v2 over IPv4", headerV2(proxy, tcpOver4, addresses4, nil), concentrator4},
	{"v2 over IPv6", headerV2(proxy, tcpOver6, addresses6, nil), concentrator6},
	{"v2 with more", headerV2(proxy, tcpOver4, addresses4, filling(moreThanIsAhead)), concentrator4},
	{"v2 of a Unix socket", headerV2(proxy, unixStream, strings.Repeat("\x00", 216), nil), balancersOwn},
	{"v2 local", headerV2(local, unspec, "", nil), balancersOwn},
	{"v2 local with addresses", headerV2(local, tcpOver4, addresses4, nil), balancersOwn},
}

// filling is n bytes in a header that say nothing.
func filling(n int) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typeNoop}, uint16(n))
	return append(b, make([]byte, n)...)
}

// dialFirst connects and sends what a balancer or somebody else sends.
func dialFirst(t *testing.T, g *Gateway, pieces ...string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", g.Address("cjt188"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, p := range pieces {
		if _, err := io.WriteString(conn, p); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// closed waits until the gateway has closed conn without a word.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is open: %d bytes, %v", n, err)
	}
}

func TestBehindABalancerTheConcentratorsOwnAddressIsTold(t *testing.T) {
	url := embed(t)
	c := config(url, "gw-1")
	c.Proxies = networks("127.0.0.0/8")
	g, _ := run(t, c)
	nc := connect(t, url)
	const login = "LOGIN:301"
	for _, row := range headers {
		for _, way := range []struct {
			name   string
			pieces []string
		}{
			{"one segment", []string{row.header + login}},
			{"a segment each", []string{row.header, login}},
			{"byte by byte", strings.Split(row.header+login, "")},
		} {
			t.Run(row.name+"/"+way.name, func(t *testing.T) {
				conn := dialFirst(t, g, way.pieces...)
				up(t, nc, "301") // the bucket may say so before commands arrive
				want := row.remote
				if want == balancersOwn {
					want = conn.LocalAddr().String()
				}
				eventually(t, "it is up as "+want, func() bool {
					l := known(t, nc, "301")
					return l.State == meter.LinkUp && l.Remote == want
				})
				a := ask(t, nc, "301", `{"meter":"1"}`)
				if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				frame := make([]byte, 18) // two FE and a request of 16 bytes
				if _, err := io.ReadFull(conn, frame); err != nil {
					t.Fatal(err)
				}
				(&dtu{t: t, conn: conn}).answers(must(cjt188.Parse(frame)), "1.00")
				a.reads("1.00")
				conn.Close()
				eventually(t, "it is down", func() bool { return known(t, nc, "301").State == meter.LinkDown })
			})
		}
	}
}

// A balancer's connection of which nothing is known but that it is the balancer's would be told under a wrong address.
func TestABalancersConnectionWithoutAHeaderIsClosed(t *testing.T) {
	url := embed(t)
	c := config(url, "gw-1")
	c.Proxies = networks("192.0.2.0/24", "127.0.0.1")
	g, _ := run(t, c)
	nc := connect(t, url)
	for name, sent := range map[string]string{
		"a registration":             "LOGIN:301",
		"a header in second place":   "LOGIN:301" + lineV1,
		"half a word":                "PROX LOGIN:301",
		"v1 without an end":          "PROXY TCP4 " + strings.Repeat("1", maxLineV1),
		"v1 without addresses":       "PROXY TCP4\r\nLOGIN:301",
		"v1 of no protocol":          "PROXY UDP4 198.51.100.7 10.0.0.1 40000 7188\r\nLOGIN:301",
		"v2 of no version":           headerV2(0x31, tcpOver4, addresses4, nil) + "LOGIN:301",
		"v2 of no family":            headerV2(proxy, 0x13, addresses4, nil) + "LOGIN:301",
		"v2 too short for addresses": headerV2(proxy, tcpOver4, "", nil) + "LOGIN:301",
		"v2 too long":                headerV2(proxy, tcpOver4, addresses4, filling(5000)) + "LOGIN:301",
	} {
		t.Run(name, func(t *testing.T) { closed(t, dialFirst(t, g, sent)) })
	}
	if l := known(t, nc, "301"); l.State != 0 {
		t.Fatalf("the bucket knows %+v", l)
	}
}

func TestWhyABalancersConnectionWasClosedIsADebugLine(t *testing.T) {
	var said bytes.Buffer
	g := must(New(config("", "gw-1")))
	g.log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	near, far := net.Pipe()
	defer far.Close()
	l := newLink(g, g.driver("cjt188"), newProxied(near), nil)
	g.add(l)
	go func() { _, _ = io.WriteString(far, "LOGIN:301") }()
	l.run()
	if line := said.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, "level=DEBUG") || !strings.Contains(line, "PROXY header") {
		t.Fatalf("the log says %q", line)
	}
}

func TestAHeaderFromAnywhereElseIsNotBelieved(t *testing.T) {
	for name, balancers := range map[string][]Network{"no balancer": nil, "another balancer": networks("192.0.2.0/24", "2001:db8::/32", "127.0.0.2")} {
		t.Run(name, func(t *testing.T) {
			url := embed(t)
			c := config(url, "gw-1")
			c.Proxies = balancers
			g, _ := run(t, c)
			nc := connect(t, url)
			for _, row := range headers {
				conn := dialFirst(t, g, row.header+"LOGIN:301")
				eventually(t, row.name+": it is up as itself", func() bool {
					l := known(t, nc, "301")
					return l.State == meter.LinkUp && l.Remote == conn.LocalAddr().String()
				})
			}
		})
	}
}

func TestASilentBalancerHoldsNobodyUp(t *testing.T) {
	url := embed(t)
	c := config(url, "gw-1")
	c.MaxLinks = 3
	c.Proxies = networks("127.0.0.1")
	g, _ := run(t, c)
	nc := connect(t, url)
	dialFirst(t, g)
	half := dialFirst(t, g, lineV1[:20])
	dialFirst(t, g, lineV1+"LOGIN:301")
	up(t, nc, "301")
	closed(t, dialFirst(t, g)) // there are too many; that is said of an address which cannot be waited for
	half.Close()
	eventually(t, "its place is free", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.links) == 2
	})
	dialFirst(t, g, lineV1+"LOGIN:302")
	up(t, nc, "302")
}

func TestWhoDripsAHeaderIsClosed(t *testing.T) {
	for name, header := range map[string]string{
		"nothing": "",
		"v1":      longestLineV1,
		"v2":      headerV2(proxy, tcpOver4, addresses4, filling(1000)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := must(New(config("", "gw-1")))
				near, far := net.Pipe()
				defer far.Close()
				l := newLink(g, g.driver("cjt188"), newProxied(near), nil)
				g.add(l)
				go l.run()
				began := time.Now()
				for i := range header {
					if _, err := io.WriteString(far, header[i:i+1]); err != nil {
						break
					}
					<-time.After(time.Second)
				}
				g.wait.Wait()
				if took := time.Since(began); took > registrationTimeout+time.Second || l.reason != errNoRegistration.Error() {
					t.Fatalf("it was open for %s: %s", took, l.reason)
				}
			})
		})
	}
}

// However a header is split, what follows comes whole, in order, and nothing is kept.
func TestAHeaderMayBeSplitAnywhere(t *testing.T) {
	after := strings.Repeat("LOGIN:301", 100)
	for _, row := range headers {
		t.Run(row.name, func(t *testing.T) {
			for split := range len(row.header) + 2 {
				near, far := net.Pipe()
				p := newProxied(near)
				go func() {
					defer far.Close()
					all := row.header + after
					_, _ = io.WriteString(far, all[:split]) // the comparison will tell
					_, _ = io.WriteString(far, all[split:])
				}()
				got, err := io.ReadAll(p)
				if err != nil || string(got) != after {
					t.Fatalf("split after %d: %d of %d bytes, %v", split, len(got), len(after), err)
				}
				want := row.remote
				if want == balancersOwn {
					want = near.RemoteAddr().String()
				}
				if p.RemoteAddr().String() != want || p.ahead != nil {
					t.Fatalf("split after %d: from %s, buffer %v", split, p.RemoteAddr(), p.ahead)
				}
				near.Close()
			}
		})
	}
}

func TestBalancersAreNetworksOrAddresses(t *testing.T) {
	parse := func(value string) (c Config, err error) {
		_, err = must(kong.New(&c)).Parse([]string{"--proxy-protocol=" + value})
		return c, err
	}
	c, err := parse("10.1.2.3/8,192.0.2.7,2001:db8::/32,::ffff:198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{config: c}
	for address, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.8": false, "::ffff:192.0.2.7": true,
		"198.51.100.7": true, "2001:db8::1": true, "2001:db9::1": false, "::1": false,
	} {
		from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1))
		if got := g.balances(from); got != want {
			t.Errorf("%s is a balancer: %v, want %v", address, got, want)
		}
	}
	for _, value := range []string{"10.0.0.0/33", "balancer", "10.0.0.1:7188", "::ffff:10.0.0.0/104", "10.0.0.0/"} {
		if _, err := parse("10.0.0.1," + value); err == nil || !strings.Contains(err.Error(), "--proxy-protocol") || !strings.Contains(err.Error(), `"`+value+`"`) {
			t.Errorf("of %s it says %v", value, err)
		}
	}
	if c, err := parse(""); err != nil || len(c.Proxies) != 0 {
		t.Errorf("nothing is %v, %v", c.Proxies, err)
	}
}

// said is a connection of which only what arrives counts.
type said struct {
	net.Conn
	bytes *bytes.Reader
}

func (s said) Read(b []byte) (int, error) { return s.bytes.Read(b) }
func (s said) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000} }

// What follows a header arrives as it is, and what is no header is never taken for a packet.
func FuzzProxyHeader(f *testing.F) {
	for _, seed := range []string{
		"", "P", "LOGIN:301", "PROXY UNKNOWN\r\nLOGIN:301", "PROXY TCP4 198.51.100.7 10.0.0.1 40000 7188\r\nLOGIN:301",
		"PROXY TCP4 198.51.100.7 10.0.0.1 40000 7188", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 7188\r\n",
		headerV2(proxy, tcpOver4, addresses4, nil) + "LOGIN:301", headerV2(proxy, tcpOver6, addresses6, []byte{4, 0, 1, 0}) + "LOGIN:301",
		headerV2(local, unspec, "", nil), headerV2(proxy, tcpOver4, addresses4[:3], nil),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newProxied(said{bytes: bytes.NewReader(b)})
		rest, err := io.ReadAll(p)
		if err == nil && len(b) == 0 {
			return
		}
		if err != nil && len(rest) > 0 {
			t.Fatalf("%q came before %v", rest, err)
		}
		if err == nil && (!bytes.HasSuffix(b, rest) || len(rest) == len(b)) {
			t.Fatalf("%q became %q", b, rest)
		}
		if p.RemoteAddr() == nil {
			t.Fatal("it has no address")
		}
	})
}
