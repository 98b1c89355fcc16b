import TestSupport
import Testing

@Suite(
  "The small Linux at work", .needsKVM, .needsSmallLinux, .needs("restic", "qemu-img"),
  .serialized)
struct SmallLinuxBusyTests {
  @Test("goes on right from a snapshot, from sleep, and from a backup of what was deleted")
  func survives() throws {
    let linux = try BusyLinux()
    let first = linux.layers
    try linux.save("snapshot")
    try linux.kill()
    try linux.goOn(from: "snapshot", over: first)
    try linux.awaitTurns(3)
    // Time goes on after the instant that is returned to again.
    try linux.kill()
    try linux.goOn(from: "snapshot", over: first)
    try linux.awaitTurns(3)

    try linux.suspend("asleep")
    try linux.goOn(from: "asleep")
    try linux.awaitTurns(3)

    let second = linux.layers
    try linux.save("backup")
    let frozen = (first + second + ["backup"]).joined(separator: " ")
    let repository = try TemporaryDirectory()
    let restic = "RESTIC_PASSWORD=secret restic -q -r \(repository.path)"
    try linux.shell("\(restic) init && \(restic) backup \(frozen)")
    try linux.awaitTurns(1)
    try linux.kill()
    try linux.shell("rm -f ide* virtio* snapshot* asleep* backup*")
    try linux.shell("\(restic) restore latest --target .")
    try linux.goOn(from: "backup", over: second)
    try linux.awaitTurns(3)
  }
}
