import CNativeCode
import TestSupport
import Testing

import Machine

/// Whether KVM itself carries an instruction out or leaves it to the machine, guests
/// cannot tell.
@Suite("Guests that use what KVM may not emulate", .needsKVM)
struct CompletionGuestTests {
  private func expectEnd(of guest: TestGuest, after text: String) throws {
    try guest.machine.resume()
    try eventually("the end of the guest") {
      guest.machine.endReason != nil || guest.machine.stuckReason != nil
        || guest.output.contains("!")
    }
    #expect(guest.machine.stuckReason == nil)
    #expect(guest.output == text)
    #expect(guest.machine.endReason == .guestShutdown)
  }

  @Test("32-bit: values, FWAIT, INT3, IRET, undefined code, single steps, SSE, x87")
  func protectedMode() throws {
    let guest = try TestGuest(GuestProgram(CGUEST_PROTECTED)) { configuration, _ in
      configuration.endsOnReset = true
    }
    try expectEnd(of: guest, after: "abcdefghkij")
  }

  @Test("64-bit: CMPXCHG16B, POPCNT, IRETQ, SSE, LAR, page faults")
  func longMode() throws {
    let guest = try TestGuest(GuestProgram(CGUEST_LONG)) { configuration, _ in
      configuration.endsOnReset = true
    }
    try expectEnd(of: guest, after: "abcdefgh")
  }

  @Test("what is not covered pauses the guest, and names bytes, instruction and place")
  func notCovered() throws {
    try #require(ProcessorModel.interpretsKernels, "this host's processor knows AESENC")
    var program = GuestProgram()
    program.emit(0x66, 0x0F, 0x38, 0xDC, 0xC1)  // aesenc xmm0, xmm1
    let guest = try TestGuest(program)
    try guest.machine.resume()
    let text = guest.waitUntilStuck()
    #expect(
      text.hasPrefix("KVM could not emulate an instruction (bytes 66 0f 38 dc c1"), "\(text)")
    #expect(
      text.hasSuffix(" at 0x100000, CPL 0: 'aesenc' is not completed here"), "\(text)")
  }
}
