import Gateway
import NIOCore
import Testing

@Suite("Places for strangers")
struct AdmissionTests {
  private func peer(_ address: String) throws -> Peer {
    Peer(try SocketAddress(ipAddress: address, port: 40000))
  }

  @Test("an IPv6 host has one share, however many addresses it uses")
  func networks() throws {
    var limits = GatewayLimits()
    limits.strangersPerPeer = 2
    var admission = Admission(limits)
    #expect(admission.admit(try peer("2001:db8:7:1::1").address) == nil)
    #expect(admission.admit(try peer("2001:db8:7:1:ffff:1:2:3").address) == nil)
    #expect(admission.admit(try peer("2001:db8:7:1::2").address) != nil)
    #expect(admission.admit(try peer("2001:db8:7:2::1").address) == nil)
    admission.release(try peer("2001:db8:7:1::1").address)
    #expect(admission.admit(try peer("2001:db8:7:1:9::9").address) == nil)
  }

  @Test("IPv4 addresses count one by one, inside IPv6 ones too")
  func addresses() throws {
    #expect(try peer("::ffff:192.0.2.1").address == peer("192.0.2.1").address)
    #expect(try peer("192.0.2.1").address.network != peer("192.0.2.2").address.network)
    #expect(
      try peer("::ffff:192.0.2.1").address.network != peer("::ffff:192.0.2.2").address.network)
  }

  @Test("people read the address, and loopback is known")
  func texts() throws {
    #expect(try peer("2001:db8:7:1::1").address.text == "2001:db8:7:1::1")
    #expect(try peer("2001:db8:7:1::1").address.network == "2001:db8:7:1::/64")
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
      #expect(try peer(address).isLoopback)
    }
    #expect(try !peer("::2").isLoopback)
    #expect(Peer(nil).address.text == "unknown")
  }
}
