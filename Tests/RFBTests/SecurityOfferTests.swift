import RFB
import Testing

@Suite("What a viewer is offered")
struct SecurityOfferTests {
  static let policies = (0..<16).map { bits in
    SecurityPolicy(
      tls: bits & 1 != 0, tickets: bits & 2 != 0, passwordless: bits & 4 != 0,
      cleartextSessions: bits & 8 != 0)
  }

  @Test("sessions in clear are offered on loopback, or where the site allows them")
  func clearSessions() {
    for policy in Self.policies {
      for loopback in [true, false] {
        let offer = SecurityOffer(transport: .tcp(loopback: loopback), policy: policy)
        let inClear = loopback || policy.cleartextSessions
        #expect(offer.types.contains(.none) == (policy.passwordless && inClear))
        #expect(offer.types.contains(.vncAuthentication) == (policy.tickets && inClear))
      }
    }
  }

  @Test("a password never crosses a clear socket")
  func noPlainInClear() {
    for policy in Self.policies {
      for transport: Transport in [
        .tcp(loopback: true), .tcp(loopback: false),
        .webSocket(encrypted: false, loopback: false),
      ] {
        let offer = SecurityOffer(transport: transport, policy: policy)
        #expect(!offer.subtypes.contains(.plain))
      }
    }
  }

  @Test("a websocket is offered VeNCrypt Plain and nothing that noVNC would prefer to it")
  func webSocket() {
    for policy in Self.policies {
      for (encrypted, loopback) in [(true, true), (true, false), (false, true)] {
        let offer = SecurityOffer(
          transport: .webSocket(encrypted: encrypted, loopback: loopback), policy: policy)
        #expect(offer == SecurityOffer(types: [.veNCrypt], subtypes: [.plain]))
      }
    }
  }

  @Test("the strongest type that carries a user name comes first")
  func order() {
    let offer = SecurityOffer(
      transport: .tcp(loopback: true), policy: SecurityPolicy(passwordless: true))
    #expect(offer.types == [.veNCrypt, .vncAuthentication, .none])
    #expect(offer.subtypes == [.x509Plain, .x509Vnc])
  }
}
