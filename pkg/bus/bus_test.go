package bus

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dianchao/dianchao/pkg/meter"
)

const patience = 20 * time.Second

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestATakenPortIsSaid(t *testing.T) {
	taken := must(net.Listen("tcp", "127.0.0.1:0"))
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "address already in use",
		"127.0.0.1":           "HOST:PORT",
		"127.0.0.1:http":      "numeric",
	} {
		if _, err := Embed(address, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	gone := must(net.Listen("tcp", "127.0.0.1:0"))
	gone.Close()
	_, err := Connect(ctx, Options{URL: "nats://" + gone.Addr().String(), Name: "test"})
	if err == nil || !strings.Contains(err.Error(), gone.Addr().String()) {
		t.Fatalf("%v", err)
	}
}

// follower notes what it is told.
type follower struct{ told chan string }

func (f follower) Begin()                           { f.told <- "begin" }
func (f follower) Complete()                        { f.told <- "complete" }
func (f follower) Change(e jetstream.KeyValueEntry) { f.told <- e.Key() + "=" + string(e.Value()) }

func (f follower) next(t *testing.T, n int) (all []string) {
	t.Helper()
	for range n {
		select {
		case s := <-f.told:
			all = append(all, s)
		case <-time.After(patience):
			t.Fatalf("told %q and then nothing", all)
		}
	}
	return all
}

func TestFollowSurvivesTheServer(t *testing.T) {
	dir := t.TempDir()
	s := must(Embed("127.0.0.1:0", dir))
	address := must(url.Parse(s.URL())).Host
	anew := make(chan struct{}, 1)
	nc := must(Connect(t.Context(), Options{URL: s.URL(), Name: "test", Reconnected: func() { anew <- struct{}{} }}))
	defer nc.Close()
	js := must(jetstream.New(nc))
	if err := ProvisionWait(t.Context(), js, Storage{}); err != nil {
		t.Fatal(err)
	}
	if err := Provision(t.Context(), js, Storage{}); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	kv := must(js.KeyValue(t.Context(), meter.BucketLinks))
	must(kv.PutString(t.Context(), "a", "1"))

	ctx, stop := context.WithCancel(t.Context())
	f, ended := follower{make(chan string, 100)}, make(chan struct{})
	go func() { Follow(ctx, js, meter.BucketLinks, Storage{}, anew, f); close(ended) }()
	if got := f.next(t, 3); !slices.Equal(got, []string{"begin", "a=1", "complete"}) {
		t.Fatalf("%q", got)
	}
	must(kv.PutString(t.Context(), "b", "2"))
	if got := f.next(t, 1); got[0] != "b=2" {
		t.Fatalf("%q", got)
	}

	// The server goes and comes back without its files.
	s.Close()
	s = must(Embed(address, t.TempDir()))
	defer s.Close()
	var got []string
	for !slices.Contains(got, "complete") {
		got = append(got, f.next(t, 1)...)
	}
	must(must(js.KeyValue(t.Context(), meter.BucketLinks)).PutString(t.Context(), "c", "3"))
	for !slices.Contains(got, "c=3") {
		got = append(got, f.next(t, 1)...)
	}
	stop()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("Follow does not end")
	}
}
