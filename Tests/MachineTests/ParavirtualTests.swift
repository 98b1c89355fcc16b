import CNativeCode
import LinuxSystem
import Machine
import TestSupport
import Testing

/// What KVM keeps for a guest in the guest's own memory, and its timer.
@Suite("What KVM offers beyond a PC", .needsKVM)
struct ParavirtualTests {
  @Test(
    "clock, steal time, noted ends of interrupts and an armed TSC deadline are the restored guest's"
  )
  func restored() throws {
    let guest = try TestGuest(GuestProgram(CGUEST_PARAVIRTUAL)) { configuration, directory in
      configuration.serial = .socket(directory.path("serial"))
    }
    let peer = try SerialPeer(guest.machine.configuration)
    try peer.socket.send([1])
    try guest.machine.resume()
    // Every KVM since Linux 3.7 offers these.
    let before = try peer.text(5)
    // An end that is noted is asked for at entry to a guest, not by the emulator.
    let ends = ProcessorModel.interpretsKernels ? ["e", "w"] : ["e"]
    try #require(ends.contains { before == "3cs\($0)a" }, "\(before)")
    let (second, secondPeer) = try guest.moved()
    try secondPeer.socket.send([1])
    try second.resume()
    let after = try secondPeer.text(6)
    #expect(ends.contains { after == "mdcs\($0)t" }, "\(after)")
    #expect(second.waitForEnd() == .guestShutdown)
  }
}

extension SerialPeer {
  /// So many characters, or what came before the guest found something wrong.
  fileprivate func text(_ count: Int) throws -> String {
    var bytes: [UInt8] = []
    while bytes.count < count, bytes.last != UInt8(ascii: "!") { bytes += try read(1) }
    return String(decoding: bytes, as: UTF8.self)
  }
}
