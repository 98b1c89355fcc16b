import RFB
import Testing

@Suite("The server's side of an RFB handshake")
struct ServerHandshakeTests {
  @Test("a viewer with VeNCrypt X509Plain gets in over TLS, byte for byte")
  func x509Plain() {
    var viewer = Conversation()
    #expect(viewer.takeSent() == Array("RFB 003.008\n".utf8))
    viewer.receive("RFB 003.008\n")
    #expect(viewer.takeSent() == [1, 19])
    viewer.receive([19])
    #expect(viewer.takeSent() == [0, 2])
    viewer.receive([0, 2])
    #expect(viewer.takeSent() == [0, 2, 0, 0, 1, 6, 0, 0, 1, 5])
    viewer.receive([0, 0, 1, 6])
    #expect(viewer.takeSent() == [1])
    #expect(viewer.takeOther() == [.startTLS])
    viewer.handle(.tlsEstablished)
    #expect(viewer.handshake.phase == .awaitingPerson)
    viewer.receive(plain("alice", "wonderland"))
    #expect(
      viewer.takeOther() == [
        .verify(.password(user: "alice", password: Array("wonderland".utf8)))
      ])
    #expect(viewer.handshake.phase == .verifying)
    viewer.handle(.verdict(.accepted))
    #expect(viewer.takeSent() == [0, 0, 0, 0])
    #expect(viewer.takeOther() == [.relay([])])
    #expect(viewer.handshake.phase == .finished)
  }

  @Test("a wrong password is told with its reason in 3.8 and without one before")
  func wrongPassword() {
    for (version, expected) in [
      ("RFB 003.008\n", [0, 0, 0, 1] + reason("wrong user name or password")),
      ("RFB 003.007\n", [0, 0, 0, 1]),
    ] {
      var viewer = Conversation(.webSocket(encrypted: true, loopback: false))
      viewer.receive(version)
      viewer.receive([19])
      viewer.receive([0, 2])
      viewer.receive([0, 0, 1, 0] + plain("alice", "guess"))
      _ = viewer.takeSent()
      viewer.handle(.verdict(.refused(reason: "wrong user name or password")))
      #expect(viewer.takeSent() == expected)
      #expect(viewer.closed == .refused)
    }
  }

  @Test("RFB 3.3 is given VNC authentication outright, and no reason on failure")
  func version33Ticket() {
    var viewer = Conversation(.tcp(loopback: true))
    _ = viewer.takeSent()
    viewer.receive("RFB 003.003\n")
    #expect(viewer.takeSent() == [0, 0, 0, 2] + Conversation.challenge)
    let response = [UInt8](repeating: 7, count: 16)
    viewer.receive(response)
    #expect(
      viewer.takeOther() == [
        .verify(.ticket(challenge: Conversation.challenge, response: response))
      ])
    viewer.handle(.verdict(.refused(reason: "expired")))
    #expect(viewer.takeSent() == [0, 0, 0, 1])
    #expect(viewer.closed == .refused)
  }

  @Test("type None has a SecurityResult in 3.8 only")
  func noneResult() {
    let policy = SecurityPolicy(tls: false, tickets: false, passwordless: true)
    for (version, choice, expected) in [
      ("RFB 003.003\n", [], [0, 0, 0, 1]),
      ("RFB 003.007\n", [1], [1, 1]),
      ("RFB 003.008\n", [1], [1, 1, 0, 0, 0, 0]),
    ] as [(String, [UInt8], [UInt8])] {
      var viewer = Conversation(.tcp(loopback: true), policy)
      _ = viewer.takeSent()
      viewer.receive(version)
      viewer.receive(choice)
      #expect(viewer.takeOther() == [.verify(.nobody)])
      // A viewer may send ClientInit without waiting.
      viewer.receive([1])
      viewer.handle(.verdict(.accepted))
      #expect(viewer.takeSent() == expected)
      #expect(viewer.takeOther() == [.relay([1])])
    }
  }

  @Test("a viewer that cannot encrypt is told so where clear sessions are forbidden")
  func nothingForOldViewers() {
    var old = Conversation(.tcp(loopback: false))
    _ = old.takeSent()
    old.receive("RFB 003.003\n")
    let told = old.takeSent()
    #expect(told.prefix(4) == [0, 0, 0, 0])
    #expect(String(decoding: told.dropFirst(8), as: UTF8.self).contains("X509Plain"))
    #expect(old.closed == .nothingInCommon)

    for version in ["RFB 003.007\n", "RFB 003.008\n"] {
      var viewer = Conversation(.webSocket(encrypted: false, loopback: false))
      _ = viewer.takeSent()
      viewer.receive(version)
      #expect(
        viewer.takeSent() == [0] + reason("sessions in clear are not allowed here; use TLS"))
      #expect(viewer.closed == .nothingInCommon)
    }
  }

  @Test("security types, subtypes and versions that were not offered are refused")
  func notOffered() {
    var type = Conversation()
    type.receive("RFB 003.008\n")
    _ = type.takeSent()
    type.receive([18])
    #expect(type.takeSent() == [0, 0, 0, 1] + reason("security type 18 was not offered"))

    var version = Conversation()
    version.receive("RFB 003.008\n")
    version.receive([19])
    _ = version.takeSent()
    version.receive([0, 1])
    #expect(version.takeSent() == [0xFF])
    #expect(version.closed == .nothingInCommon)

    var subtype = Conversation()
    subtype.receive("RFB 003.008\n")
    subtype.receive([19])
    subtype.receive([0, 2])
    _ = subtype.takeSent()
    subtype.receive([0, 0, 1, 0])
    #expect(subtype.takeSent() == [0], "Plain is never taken on a clear socket")
    #expect(subtype.closed == .nothingInCommon)
  }

  @Test("bytes in clear ahead of TLS end the handshake")
  func injection() {
    var viewer = Conversation()
    viewer.receive("RFB 003.008\n")
    viewer.receive([19])
    viewer.receive([0, 2])
    viewer.receive([0, 0, 1, 6] + plain("mallory", "x"))
    #expect(viewer.closed == .garbage)
    #expect(!viewer.other.contains(.startTLS))
  }

  @Test("garbage instead of a version is closed without an answer")
  func garbage() {
    for text in [
      "GET / HTTP/1.1\r\n", "RFB 003.00x\n", "RFB 002.008\n", "RFB 003:008\n", "RFB 003.008 ",
    ] {
      var viewer = Conversation()
      _ = viewer.takeSent()
      viewer.receive(text)
      #expect(viewer.takeSent() == [])
      #expect(viewer.closed == .garbage, "\(text)")
    }
  }

  @Test("oversized input is refused before it is kept")
  func oversized() {
    var flood = Conversation()
    flood.receive([UInt8](repeating: 0, count: ServerHandshake.memoryLimit + 1))
    #expect(flood.closed == .oversized)
    #expect(flood.handshake.bufferedByteCount == 0)

    for lengths: [UInt8] in [
      [0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 4, 1], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
      [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
    ] {
      var viewer = Conversation(.webSocket(encrypted: true, loopback: false))
      viewer.receive("RFB 003.008\n")
      viewer.receive([19, 0, 2, 0, 0, 1, 0])
      _ = viewer.takeSent()
      viewer.receive(lengths)
      #expect(viewer.closed == .oversized)
      #expect(viewer.takeSent().prefix(4) == [0, 0, 0, 1])
    }
  }

  @Test("a person has time to type, a program that stops half-way has not")
  func phases() {
    var viewer = Conversation(.webSocket(encrypted: true, loopback: false))
    #expect(viewer.handshake.phase == .negotiating)
    viewer.receive("RFB 003.008\n")
    viewer.receive([19, 0, 2, 0, 0, 1, 0])
    #expect(viewer.handshake.phase == .awaitingPerson)
    viewer.receive([0])
    #expect(viewer.handshake.phase == .negotiating)
    _ = viewer.takeSent()
    viewer.handle(.timedOut)
    #expect(viewer.takeSent().prefix(4) == [0, 0, 0, 1])
    #expect(viewer.closed == .timedOut)
    #expect(viewer.handshake.handle(.received([1])) == [])
  }

  @Test(
    "a handshake goes the same way wherever its bytes are cut",
    arguments: ["RFB 003.003\n", "RFB 003.007\n", "RFB 003.008\n", "RFB 003.889\n"])
  func cutAnywhere(version: String) {
    let response = [UInt8](repeating: 9, count: 16)
    let choice: [UInt8] = version == "RFB 003.003\n" ? [] : [2]
    let script = Array(version.utf8) + choice + response
    var whole = Conversation(.tcp(loopback: true))
    whole.receive(script)
    for cut in 0...script.count {
      var viewer = Conversation(.tcp(loopback: true))
      viewer.receive(Array(script[..<cut]))
      viewer.receive(Array(script[cut...]))
      #expect(viewer.sent == whole.sent)
      #expect(viewer.other == whole.other)
    }
    #expect(
      whole.other == [.verify(.ticket(challenge: Conversation.challenge, response: response))])
  }

  @Test("VeNCrypt Plain goes the same way byte by byte")
  func byteByByte() {
    let script =
      Array("RFB 003.008\n".utf8) + [19, 0, 2, 0, 0, 1, 0] + plain("béla", "pass word")
    var viewer = Conversation(.webSocket(encrypted: false, loopback: true))
    for byte in script { viewer.receive([byte]) }
    #expect(
      viewer.other == [
        .verify(.password(user: "béla", password: Array("pass word".utf8)))
      ])
  }

  @Test("a ticket can be used inside TLS")
  func x509Vnc() {
    var viewer = Conversation()
    viewer.receive("RFB 003.008\n")
    viewer.receive([19])
    viewer.receive([0, 2])
    viewer.receive([0, 0, 1, 5])
    _ = viewer.takeSent()
    viewer.handle(.tlsEstablished)
    #expect(viewer.takeSent() == Conversation.challenge)
  }
}
