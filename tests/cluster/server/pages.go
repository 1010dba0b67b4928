package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is what /bytes/N sends again and again.
var chunk = []byte(strings.Repeat("x", 64*1024))

// pages is the state behind the HTTP paths.
type pages struct {
	name       string
	open       atomic.Int64
	begun      atomic.Int64
	unfinished atomic.Int64
	sick       atomic.Bool
	mutex      sync.Mutex
	listeners  map[int]net.Listener
	eaten      [][]byte
}

func newPages(name string) *pages {
	return &pages{name: name, listeners: map[int]net.Listener{}}
}

func (p *pages) mux() http.Handler {
	mux := http.NewServeMux()
	for path, page := range map[string]http.HandlerFunc{
		"/{$}":       p.who,
		"/bytes/{n}": p.bytes,
		"/sink":      p.sink,
		"/hold-body": p.holdBody,
		"/slow":      p.slow,
		"/reset":     p.reset,
		"/listen":    p.listen,
		"/health":    p.health,
		"/env":       p.env,
		"/log":       p.log,
		"/stats":     p.stats,
		"/eat":       p.eat,
		"/exit":      p.exit,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			p.begun.Add(1)
			page(w, r)
		})
	}
	return mux
}

// connection counts the open connections.
func (p *pages) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		p.open.Add(-1)
	}
}

func (p *pages) who(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, p.name)
}

func (p *pages) bytes(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	w.Header().Set("Content-Type", "application/octet-stream")
	for left > 0 {
		n, err := w.Write(chunk[:min(left, int64(len(chunk)))])
		if err != nil {
			p.unfinished.Add(1)
			return
		}
		left -= int64(n)
	}
}

func (p *pages) sink(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		p.unfinished.Add(1)
		return
	}
	fmt.Fprint(w, size)
}

func (p *pages) holdBody(w http.ResponseWriter, r *http.Request) {
	p.wait(r)
	p.sink(w, r)
}

func (p *pages) slow(w http.ResponseWriter, r *http.Request) {
	p.wait(r)
	p.who(w, r)
}

// wait waits as long as the request asks for.
func (p *pages) wait(r *http.Request) {
	time.Sleep(time.Duration(number(r.FormValue("ms"), 300)) * time.Millisecond)
}

// reset ends the connection by RST: with SO_LINGER 0 the kernel throws away what is unsent.
func (p *pages) reset(w http.ResponseWriter, r *http.Request) {
	after := number(r.FormValue("after"), 0)
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Fatal(err)
	}
	if after > 0 {
		fmt.Fprintf(buffered, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 2*after, strings.Repeat("x", after))
		buffered.Flush()
	}
	connection.(*net.TCPConn).SetLinger(0)
	connection.Close()
}

// listen opens and closes a port: while it is closed, the kernel refuses.
func (p *pages) listen(w http.ResponseWriter, r *http.Request) {
	port := number(r.FormValue("port"), 0)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if listener := p.listeners[port]; listener != nil {
		listener.Close()
		delete(p.listeners, port)
	}
	if r.FormValue("on") == "1" {
		listener, err := tcp(port, echo)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		p.listeners[port] = listener
	}
	fmt.Fprintln(w, "ok")
}

func (p *pages) health(w http.ResponseWriter, r *http.Request) {
	if wish := r.FormValue("set"); wish != "" {
		p.sick.Store(wish == "bad")
		fmt.Fprintln(w, "ok")
		return
	}
	if p.sick.Load() {
		http.Error(w, "bad", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (p *pages) env(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
}

func (p *pages) log(w http.ResponseWriter, r *http.Request) {
	fmt.Println(r.FormValue("line"))
	fmt.Fprintln(w, "ok")
}

func (p *pages) stats(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(map[string]int64{
		"open":       p.open.Load(),
		"begun":      p.begun.Load(),
		"unfinished": p.unfinished.Load(),
	})
}

// eat takes memory and touches each page of it, so that the kernel has to find it.
func (p *pages) eat(w http.ResponseWriter, r *http.Request) {
	memory := make([]byte, number(r.FormValue("mb"), 1)<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.eaten = append(p.eaten, memory)
	fmt.Fprintln(w, "ok")
}

func (p *pages) exit(_ http.ResponseWriter, r *http.Request) {
	os.Exit(number(r.FormValue("code"), 0))
}
