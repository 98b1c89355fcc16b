import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("What the control socket tells of a guest", .needsKVM, .serialized)
struct EventTests {
  /// A guest that acts once a byte is sent, so that the client is there before.
  private struct Started {
    let program: RunningProgram
    let control: ControlClient
    let line: UnixSocket

    init(_ arguments: [String] = [], _ act: (inout GuestProgram) -> Void) throws {
      var guest = GuestProgram()
      guest.waitForSerial()
      act(&guest)
      program = try RunningProgram(
        guest, ["--vga", "none", "--serial", "unix:@/line"] + arguments)
      control = try program.control()
      line = try UnixSocket.connect(to: program.directory.path("line"), kind: .stream)
    }

    func go() throws { try line.send([1]) }

    func expectEvent(_ name: String, _ data: JSON? = nil) throws {
      let event = try control.nextEvent()
      #expect(event.name == name)
      #expect(event.data == data)
    }
  }

  @Test("a guest that switches itself off")
  func shutdown() throws {
    let guest = try Started { $0.powerOff() }
    try guest.go()
    try guest.expectEvent("SHUTDOWN", ["guest": true, "reason": "guest-shutdown"])
    #expect(try guest.program.process.wait() == .exited(0))
    #expect(try guest.program.exitRecord()["reason"] == "guest-shutdown")
  }

  @Test("a guest that resets itself, by a register and by a triple fault, and then the user")
  func reset() throws {
    for act in [{ $0.outByte(0xCF9, 0x06) }, { $0.tripleFault() }] as [(inout GuestProgram) -> Void]
    {
      let guest = try Started {
        act(&$0)
        $0.stop()
      }
      for _ in 0..<2 {
        try guest.go()
        try guest.expectEvent("RESET", ["guest": true, "reason": "guest-reset"])
      }
      try guest.control.execute("system_reset")
      try guest.expectEvent("RESET", ["guest": false, "reason": "host-qmp-system-reset"])
      #expect(try guest.control.execute("query-status")["running"] == true)
    }
  }

  @Test("with --no-reboot a reset is the end, and a triple fault is a crash")
  func noReboot() throws {
    let reset = try Started(["--no-reboot"]) { $0.outByte(0xCF9, 0x06) }
    try reset.go()
    try reset.expectEvent("SHUTDOWN", ["guest": true, "reason": "guest-reset"])
    #expect(try reset.program.process.wait() == .exited(0))
    #expect(try reset.program.exitRecord()["reason"] == "guest-reset")

    let crash = try Started(["--no-reboot"]) { $0.tripleFault() }
    try crash.go()
    let event = try crash.control.nextEvent()
    #expect(event.name == "GUEST_PANICKED")
    #expect(event.data?["action"] == "poweroff")
    try crash.expectEvent("SHUTDOWN", ["guest": true, "reason": "guest-panic"])
    #expect(try crash.program.process.wait() == .exited(1))
    #expect(try crash.program.exitRecord()["reason"] == "triple-fault")
  }

  @Test("a guest that KVM cannot go on with is paused: where it was is in the event and the log")
  func internalError() throws {
    let guest = try Started { $0.jumpIntoNothing() }
    try guest.go()
    let event = try guest.control.nextEvent()
    #expect(event.name == "GUEST_PANICKED")
    #expect(event.data?["action"] == "pause")
    let detail = try #require(event.data?["info"]?["detail"]?.text)
    #expect(detail.contains("0xd0000000") && detail.contains("CPL 0"), "\(detail)")
    try guest.expectEvent("STOP")
    let status = try guest.control.execute("query-status")
    #expect(status["status"] == "internal-error" && status["running"] == false)
    #expect(throws: (any Error).self) { try guest.control.execute("cont") }
    #expect(
      guest.program.errors == "carrel-vmm: the guest is paused until it is reset: \(detail)\n")
    try guest.control.execute("quit")
    #expect(try guest.program.process.wait() == .exited(0))
  }

  @Test("with --on-internal-error end it is the end, and in the exit record too")
  func internalErrorEnds() throws {
    let guest = try Started(["--on-internal-error", "end"]) { $0.jumpIntoNothing() }
    try guest.go()
    #expect(try guest.control.nextEvent().name == "GUEST_PANICKED")
    try guest.expectEvent("STOP")
    let event = try guest.control.nextEvent()
    #expect(event.name == "GUEST_PANICKED")
    #expect(event.data?["action"] == "poweroff")
    let detail = try #require(event.data?["info"]?["detail"]?.text)
    try guest.expectEvent("SHUTDOWN", ["guest": true, "reason": "guest-panic"])
    #expect(try guest.program.process.wait() == .exited(1))
    let record = try guest.program.exitRecord()
    #expect(record["reason"] == "internal-error")
    #expect(record["detail"]?.text == detail)
    #expect(guest.program.errors == "carrel-vmm: \(detail)\n")
  }
}
