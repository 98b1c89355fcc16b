import CNativeCode
import Glibc
import LinuxSystem
import Machine
import QMP
import Snapshot
import TestSupport
import Testing

@Suite("Clones of a template", .needsKVM)
struct TemplateTests {
  @Test("each is somebody else, with its own entropy, and the template's bytes stay as they are")
  func identities() throws {
    let template = try RunningTemplate()
    let before = try memory(of: template)
    var seen: [String: Set<[UInt8]>] = [:]
    var last: RunningClone?
    let count = 1000
    for number in 0..<count {
      let clone = try template.clone("desk-\(number)")
      #expect(try clone.answers(UInt8(number & 0x3F)))
      let identity = try clone.identity()
      seen["entropy", default: []].insert(identity.entropy)
      seen["generation", default: []].insert(identity.generation)
      seen["address", default: []].insert(identity.address)
      seen["uuid", default: []].insert(identity.uuid)
      #expect(identity.uuid == MachineUUID.derived(from: "desk-\(number)").bytes)
      #expect(identity.file == "desk-\(number)")
      #expect(identity.notices == 1, "of another generation")
      #expect(!identity.isLinkUp)
      #expect(identity.page == 0, "what another one wrote")
      #expect(try clone.tell(UInt8(ascii: "d"), answer: 1) == Array("d".utf8))
      #expect(try clone.identity().page == 1)
      // Two at a time: the last one does not see what this one does either.
      if let last { #expect(try last.identity().page == 1) }
      last = clone
    }
    for (what, values) in seen { #expect(values.count == count, "\(what)") }
    #expect(try memory(of: template) == before)
  }

  @Test("SMBIOS in a clone's memory has its UUID, and nothing else that is new")
  func smbios() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program)
    let saved = try guest.machine.save()
    var configuration = guest.machine.configuration
    configuration.uuid = .derived(from: "clone")
    let clone = try Machine(configuration, from: saved, as: .another)
    func tables(_ machine: Machine) throws -> [UInt8] {
      try machine.save().copiedMemory().map().withBytes { Array($0[0xF_0000..<0xF_1000]) }
    }
    let fresh = try Machine(configuration)
    #expect(try tables(clone) == tables(fresh))
    #expect(try tables(clone) != tables(guest.machine))
    let same = try Machine(configuration, from: saved)
    #expect(try tables(same) == tables(guest.machine), "a machine that goes on is who it was")
  }

  /// The memory that clones have views of, as the process holds it.
  private func memory(of template: RunningTemplate) throws -> [UInt8] {
    let number = template.process.handle.identifier
    for descriptor in 3..<64 {
      let path = "/proc/\(number)/fd/\(descriptor)"
      var target = [CChar](repeating: 0, count: 256)
      guard readlink(path, &target, 255) > 0 else { continue }
      let name = String(
        decoding: target.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if name.contains("carrel-template-ram") { return try Files.read(path) }
    }
    throw NeverCame(what: "the template's memory")
  }

  @Test("the clock shows the present time, and a MAC address follows from the UUID")
  func clock() throws {
    let template = try RunningTemplate()
    let uuid = MachineUUID.random()
    let before = WallClock.now.seconds
    let identity = try template.clone("desk") { $0.uuid = "\(uuid)" }.identity()
    #expect(identity.uuid == uuid.bytes)
    let day = 86400
    let shown = Int64(identity.clock[0] * 3600 + identity.clock[1] * 60 + identity.clock[2])
    let late = (shown - before % Int64(day) + Int64(day)) % Int64(day)
    #expect(late <= 60, "\(identity.clock)")
    let again = try template.clone("desk2") { $0.uuid = "\(uuid)" }.identity()
    #expect(again.address == identity.address)
    #expect(again.generation != identity.generation)
  }

  @Test("clones do not need the template, and it leaves word and no process behind")
  func independent() throws {
    let template = try RunningTemplate([], ["--prepared", "3"])
    let clone = try template.clone("desk")
    // Those that are ready hear that it went.
    var ready: [Int32] = []
    try eventually("three copies") {
      ready = try children(of: template)
      return ready.count == 4
    }
    try template.process.handle.send(.kill)
    #expect(try template.process.wait() == .signalled(.kill))
    #expect(try clone.answers(3))
    for process in ready where process != clone.handle.identifier {
      try eventually("a copy's end") {
        ProcessHandle.startTime(of: process) == nil || isZombie(process)
      }
    }
    #expect(clone.handle.isRunning)
  }

  private func children(of template: RunningTemplate) throws -> [Int32] {
    let number = template.process.handle.identifier
    let text = String(
      decoding: try Files.read("/proc/\(number)/task/\(number)/children"), as: UTF8.self)
    return text.split(separator: " ").compactMap { Int32($0) }
  }

  private func isZombie(_ process: Int32) -> Bool {
    guard let bytes = try? Files.read("/proc/\(process)/stat") else { return false }
    return String(decoding: bytes, as: UTF8.self).contains(") Z ")
  }

  @Test("SIGTERM ends it, with an exit record, and its socket goes")
  func ends() throws {
    let template = try RunningTemplate()
    let clone = try template.clone("desk")
    #expect(Files.exists(template.directory.path("template/vmm.json")))
    try template.process.handle.send(.terminate)
    #expect(try template.process.wait() == .exited(0))
    #expect(!Files.exists(template.directory.path("listen")))
    let record = try JSON(parsing: try template.directory.read("template/exit.json"))
    #expect(record["reason"] == "quit")
    #expect(try clone.answers(1))
  }

  @Test("a clone is a process like any other: directory, control socket, exit record, reaped")
  func process() throws {
    let template = try RunningTemplate()
    let directory = template.directory
    let clone = try template.clone("desk") {
      $0.runtimeDirectory = directory.path("desk")
      $0.control = directory.path("desk.control")
    }
    let word = try JSON(parsing: try directory.read("desk/vmm.json"))
    #expect(word["pid"] == .integer(Int64(clone.handle.identifier)))
    #expect(word["startTime"] == .integer(Int64(clone.handle.startTime)))
    #expect(word["name"] == "desk")
    let control = try ControlClient(
      try UnixSocket.connect(
        to: directory.path("desk.control"), kind: .stream, offeredBy: clone.handle))
    #expect(try control.execute("query-name")["name"] == "desk")
    #expect(try control.execute("query-status")["status"] == "running")
    let again = try template.ask(
      {
        var request = CloneRequest(name: "other")
        request.runtimeDirectory = directory.path("desk")
        return request
      }())
    guard case .refused(let problem) = again else { throw NeverCame(what: "refusal") }
    #expect(problem.contains("another carrel-vmm runs with runtime directory"))
    #expect(try clone.answers(9), "the one that was there is undisturbed")
    try control.execute("quit")
    try eventually("the exit record") { Files.exists(directory.path("desk/exit.json")) }
    #expect(try JSON(parsing: try directory.read("desk/exit.json"))["reason"] == "quit")
    try eventually("it to be reaped") {
      try !children(of: template).contains(clone.handle.identifier)
    }
  }

  @Test("network cables are plugged in when somebody says so")
  func link() throws {
    let directory = try TemporaryDirectory()
    let wire = try UnixListener(at: directory.path("wire"), kind: .stream)
    let template = try RunningTemplate(["--net", "socket:@/wire"], in: directory)
    let clone = try template.clone("desk") {
      $0.networks = ["socket:\(directory.path("wire"))"]
      $0.control = directory.path("desk.control")
    }
    let peer = try wire.accept()
    #expect(try !clone.identity().isLinkUp)
    let control = try ControlClient(
      try UnixSocket.connect(
        to: directory.path("desk.control"), kind: .stream, offeredBy: clone.handle))
    try control.execute("set_link", ["name": "net0", "up": true])
    #expect(try clone.identity().isLinkUp)
    let second = try template.clone("desk2") {
      $0.networks = ["socket:\(directory.path("wire"))"]
      $0.isLinkUp = true
    }
    #expect(try second.identity().isLinkUp)
    withExtendedLifetime(peer) {}
    guard case .refused(let problem) = try template.ask(CloneRequest(name: "desk3")) else {
      throw NeverCame(what: "refusal")
    }
    #expect(problem.contains("a network that only one can use"))
  }

  @Test("bad requests are refused with the reason, one after the other, and cost nothing")
  func refused() throws {
    let template = try RunningTemplate([], ["--prepared", "1"])
    let null = try FileDescriptor.open("/dev/null", .writable)
    func refusal(_ text: String, _ descriptors: [FileDescriptor] = []) throws -> String {
      guard case .refused(let problem) = try template.ask(Array(text.utf8), descriptors) else {
        throw NeverCame(what: "refusal of \(text)")
      }
      return problem
    }
    #expect(try refusal("{").contains("not JSON"))
    #expect(try refusal("{\"name\": \"a\", \"memory\": \"1G\"}").contains("'memory' is unexpected"))
    let long = "{\"name\": \"\(String(repeating: "a", count: 40_000))\"}"
    #expect(try refusal(long).contains("longer than 32768 bytes"))
    let cases: [(String, String)] = [
      ("\"uuid\": \"x\"", "'x' is no UUID"), ("\"disk\": [\"/a\"]", "has 0 disks"),
      ("\"net\": [\"user\"]", "other network cards"),
      ("\"channel\": [\"name=a,socket=/b\"]", "has no channels"),
      ("\"fw-cfg\": [\"name=opt/x,string=y\"]", "no fw_cfg file 'opt/x'"),
      ("\"vsock\": \"cid=3,socket=/v\"", "has no vsock"),
      ("\"nvram\": \"/n\"", "no UEFI"), ("\"serial\": \"tcp:1\"", "no such kind of serial port"),
      ("\"control\": \"/nonexistent/c\"", "/nonexistent/c"),
    ]
    for (member, reason) in cases {
      let problem = try refusal("{\"name\": \"a\", \(member)}")
      #expect(problem.contains(reason), "\(member): \(problem)")
    }
    #expect(
      try refusal("{\"name\": \"a\"}", [null]).contains("1 descriptors instead of none or three"))
    #expect(try template.clone("desk").answers(5))
    #expect(try children(of: template).count <= 2)
  }

  @Test("without a descriptor left it turns those who ask away, and serves again later")
  func fullOfDescriptors() throws {
    let template = try RunningTemplate([], ["--prepared", "0"], descriptors: 56)
    #expect(try template.clone("desk").answers(1))
    var others: [UnixSocket] = []
    var isFull = false
    for _ in 0..<60 where !isFull {
      others.append(
        try UnixSocket.connect(to: template.directory.path("listen"), kind: .packets))
      // One that is served says that this is no request; others end.
      _ = try? others[others.count - 1].send([0])
      isFull = try !says(others[others.count - 1], "not JSON")
    }
    #expect(isFull)
    // No descriptor for a copy's socket either.
    guard case .refused(let problem) = try template.ask(CloneRequest(name: "none")) else {
      throw NeverCame(what: "refusal")
    }
    #expect(problem.contains("no room for another process"))
    others = []
    try eventually("room again") { (try? template.clone("desk2"))?.handle.isRunning == true }
  }

  private func says(_ socket: UnixSocket, _ text: String) throws -> Bool {
    guard let message = try? socket.receive() else { return false }
    return String(decoding: message.bytes, as: UTF8.self).contains(text)
  }

  @Test("a copy that dies in the making is told of, and is replaced")
  func dies() throws {
    let template = try RunningTemplate([], ["--prepared", "2"])
    try eventually("two copies") { try children(of: template).count == 2 }
    let copies = try children(of: template)
    for process in copies { kill(process, SIGSTOP) }
    var request = CloneRequest(name: "desk")
    request.serial = "none"
    try template.socket.send(request.encoded)
    // What is no request is answered when it is read, and requests of one round are passed on
    // before the next: after two rounds, a copy has it.
    let other = try UnixSocket.connect(to: template.directory.path("listen"), kind: .packets)
    for _ in 0..<2 {
      try other.send([0])
      #expect(try says(other, "not JSON"))
    }
    for process in copies { kill(process, SIGKILL) }
    let answer = try #require(CloneAnswer(parsing: try template.socket.receive().bytes))
    guard case .refused(let problem) = answer else { throw NeverCame(what: "refusal") }
    #expect(problem.contains("ended"), "\(problem)")
    // Until it is reaped, a copy that was killed may be handed a request yet.
    try eventually("both to be gone") {
      Set(try children(of: template)).isDisjoint(with: copies)
    }
    #expect(try template.clone("desk2").answers(1))
  }

  @Test("a saved machine goes on as another one without a template, too")
  func restored() throws {
    let template = try RunningTemplate()
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    let other = try RunningProgram(
      nil,
      [
        "--kernel", "@/program", "--vga", "none", "--net", "none", "--serial", "stdio", "--name",
        "other", "--fw-cfg", "name=opt/carrel/hostname,string=other", "--restore",
        "@/saved,identity=new",
      ], in: template.directory, descriptors: [0: theirs.descriptor, 1: theirs.descriptor])
    let clone = RunningClone(line: ours, handle: other.process.handle)
    let identity = try clone.identity()
    #expect(identity.uuid == MachineUUID.derived(from: "other").bytes)
    #expect(identity.notices == 1)
    #expect(identity.file == "other")
  }

  @Test("a snapshot of a machine that somebody's session ran in is no template")
  func session() throws {
    let guest = try TestGuest(GuestProgram(CGUEST_CLONE))
    let path = guest.directory.path("saved")
    let marked = guest.directory.path("marked")
    try guest.machine.saveSnapshot(
      SnapshotRequest(path: path, identifier: .random(), created: 0))
    try guest.machine.saveSnapshot(
      SnapshotRequest(path: marked, identifier: .random(), created: 0, hasSession: true))
    guest.machine.quit()
    let saved = try SnapshotChain(path: path) { _ in nil }
    #expect(throws: Never.self) { try MachineTemplate(guest.machine.configuration, from: saved) }
    let error = #expect(throws: MachineError.self) {
      try MachineTemplate(
        guest.machine.configuration, from: try SnapshotChain(path: marked) { _ in nil })
    }
    #expect(error?.description.contains("what a user did in a session") == true)
  }

  @Test("in one process, too, a clone's writes are its own, and the template's sums the same")
  func within() throws {
    let guest = try TestGuest(GuestProgram(CGUEST_CLONE))
    let path = guest.directory.path("saved")
    try guest.machine.resume()
    try guest.awaitOutput("R")
    try guest.machine.saveSnapshot(
      SnapshotRequest(path: path, identifier: .random(), created: 0))
    guest.machine.quit()
    let chain = try SnapshotChain(path: path) { _ in nil }
    let template = try MachineTemplate(guest.machine.configuration, from: chain)
    let sums = try template.checksums()
    #expect(sums["ram"] != nil)
    for _ in 0..<3 {
      let clone = try template.prepare().become(guest.machine.configuration)
      #expect(clone.hostMemory < 1 << 20)
      try clone.resume()
      // It hears of its generation, and writes that down.
      try eventually("a write") {
        try clone.save().copiedMemory().map().withBytes { $0[0x30_0004] } == 1
      }
      clone.quit()
      #expect(try template.checksums() == sums)
    }
  }

  @Test("a process that has other threads is not copied")
  func threads() throws {
    let threads = try ProcessFork.threadCount()
    #expect(threads > 1)
    let error = #expect(throws: SystemError.self) { try ProcessFork.fork() }
    #expect(error?.kind == .busy)
  }

  @Test(
    "templates that cannot be are refused",
    arguments: [
      ("--restore /s,remove=on", "which stays: give --restore FILE alone"),
      ("", "goes on from a saved machine"),
      ("--restore /s --control /c", "leave out --vnc, --display-link and --control"),
      ("--restore /s --prepared 65", "65 prepared clones cannot be"),
      ("--restore /nonexistent/s", "there is no snapshot /nonexistent/s"),
    ])
  func options(arguments: String, reason: String) throws {
    let (status, output) = try TemporaryDirectory().run(
      "timeout 20 \(Programs.built("carrel-vmm")) template --listen ./t --kernel /k \(arguments)")
    #expect(status != 0)
    #expect(output.contains(reason), "\(output)")
  }
}
