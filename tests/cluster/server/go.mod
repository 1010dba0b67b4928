module kecs.dev/testserver

go 1.24
