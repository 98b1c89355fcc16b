import QMP
import Testing

@Suite("Requests for clones")
struct CloneRequestTests {
  private var whole: CloneRequest {
    var request = CloneRequest(name: "desk-7")
    request.uuid = "41000000-0000-4000-8000-000000000001"
    request.disks = ["/a,format=qcow2", "/b"]
    request.networks = ["user"]
    request.channels = ["name=org.qemu.guest_agent.0,socket=/c"]
    request.firmwareFiles = ["name=opt/carrel/user,string=\"ada\""]
    request.vsock = "cid=3,socket=/v"
    request.serial = "stdio"
    request.nvram = "/n"
    request.displayLink = "/d"
    request.control = "/q"
    request.runtimeDirectory = "/r"
    request.isLinkUp = true
    return request
  }

  @Test("what one side writes the other reads")
  func roundTrip() throws {
    #expect(try CloneRequest(parsing: whole.encoded) == whole)
    #expect(try CloneRequest(parsing: Array("{\"name\": \"a\"}".utf8)) == CloneRequest(name: "a"))
    for answer in [CloneAnswer.started(process: 7, startTime: 1 << 40), .refused("no \"room\"")] {
      #expect(CloneAnswer(parsing: answer.encoded) == answer)
    }
  }

  @Test(
    "what is no request is refused, and told why",
    arguments: [
      ("", "not JSON"), ("[]", "not a JSON object"), ("{}", "'name' is missing"),
      ("{\"name\": 7}", "'name' is missing, or no text"), ("{\"name\": \"\"}", "'name' is missing"),
      ("{\"name\": \"a\", \"disk\": \"b\"}", "'disk' expects at most 64 texts"),
      ("{\"name\": \"a\", \"disk\": [1]}", "'disk' expects at most 64 texts"),
      ("{\"name\": \"a\", \"control\": []}", "'control' expects a text"),
      ("{\"name\": \"a\", \"control\": \"\"}", "'control' expects a text"),
      ("{\"name\": \"a\", \"link\": \"sideways\"}", "'link' expects up or down"),
      ("{\"name\": \"a\", \"kernel\": \"b\"}", "'kernel' is unexpected"),
      ("{\"name\": \"a\", \"disk\": [[[[[]]]]]}", "nesting too deep"),
      ("{\"name\": \"a\"} {", "not JSON"),
    ])
  func refused(text: String, reason: String) {
    let error = #expect(throws: QMPError.self) { try CloneRequest(parsing: Array(text.utf8)) }
    #expect(error?.context.contains(reason) == true, "\(text): \(String(describing: error))")
  }

  @Test("one that is too long is refused before it is looked at")
  func long() {
    var request = CloneRequest(name: "a")
    request.disks = Array(repeating: String(repeating: "x", count: 600), count: 60)
    let error = #expect(throws: QMPError.self) { try CloneRequest(parsing: request.encoded) }
    #expect(error?.context.contains("longer than 32768 bytes") == true)
    let many =
      "{\"name\": \"a\", \"net\": [" + Array(repeating: "\"\"", count: 65).joined(separator: ",")
      + "]}"
    #expect(throws: QMPError.self) { try CloneRequest(parsing: Array(many.utf8)) }
  }

  @Test("any bytes are refused or are a request that reads the same again")
  func anything() throws {
    var generator = SystemRandomNumberGenerator()
    var accepted = 0
    for round in 0..<20_000 {
      var bytes = whole.encoded
      for _ in 0..<Int.random(in: 0...3, using: &generator) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        switch round % 3 {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.removeSubrange(place..<min(place + 9, bytes.count))
        default: bytes.insert(contentsOf: bytes[place...].prefix(20), at: place)
        }
        if bytes.isEmpty { break }
      }
      #expect(CloneRequest.readsAlike(bytes))
      if (try? CloneRequest(parsing: bytes)) != nil { accepted += 1 }
    }
    #expect(accepted > 1000, "some are as they were, and some still make sense")
  }
}
