// Server is what runs in the pods of the cluster tests: plain answers, and every kind of trouble on demand.
package main

func main() {}
