package main

import (
	"fmt"
	"io"
	"log"
	"net"
)

// tcp listens on a port and gives each connection to talk, which need not close it.
func tcp(port int, talk func(*net.TCPConn)) (net.Listener, error) {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed by /listen
			}
			go func() {
				defer connection.Close()
				talk(connection.(*net.TCPConn))
			}()
		}
	}()
	return listener, nil
}

// echo sends back what comes; after the peer's FIN it still sends what is outstanding.
func echo(connection *net.TCPConn) {
	io.Copy(connection, connection)
}

// half closes its own half after one line and reads on.
func half(connection *net.TCPConn) {
	fmt.Fprintln(connection, "half")
	connection.CloseWrite()
	size, err := io.Copy(io.Discard, connection)
	log.Printf("half read %d %v", size, err)
}

// count answers only after the peer's FIN.
func count(connection *net.TCPConn) {
	size, err := io.Copy(io.Discard, connection)
	if err == nil {
		fmt.Fprint(connection, size)
	}
}

// udp echoes datagrams on a port.
func udp(port int) error {
	connection, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go func() {
		datagram := make([]byte, 65536)
		for {
			size, peer, err := connection.ReadFrom(datagram)
			if err != nil {
				log.Fatal(err)
			}
			connection.WriteTo(datagram[:size], peer)
		}
	}()
	return nil
}
