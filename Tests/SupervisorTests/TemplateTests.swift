import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Templates of pools", .needsKVM, .serialized)
struct TemplateTests {
  private let pool = PoolName(rawValue: "office")

  /// A desktop of a guest that halts: its screen and processor rest at once.
  private func request(
    _ number: UInt64, in running: RunningSupervisor, generation: UInt64 = 1, memoryMiB: Int = 16,
    hardware: Hardware = Hardware(), disk: LaunchRequest.Disk = .fresh
  ) throws -> LaunchRequest {
    let path = running.directory.path("guest.elf")
    // The template is of this very file.
    if !Files.exists(path) { try Files.replace(path, with: SmallGuest.sleeping) }
    return LaunchRequest(
      desktop: DesktopID(pool: pool, number: number), generation: generation,
      image: Image(kind: .kernel, path: path), memoryMiB: memoryMiB, cpus: 1, hardware: hardware,
      disk: disk, user: nil, keyboardLayout: "en-us")
  }

  private func make(
    _ request: LaunchRequest, _ running: RunningSupervisor, limitSeconds: Int = 60
  ) async throws -> PoolTemplate {
    try await running.supervisor.makeTemplate(
      TemplatePlan(
        pool: pool, machine: TemplateMachine(of: request),
        readiness: try TemplateReadiness(
          sign: .screen, settleSeconds: 1, limitSeconds: limitSeconds)))
    return try await running.settledTemplate()
  }

  private func parent(of desktop: String, _ running: RunningSupervisor) throws -> Int32 {
    let stat = String(
      decoding: try Files.read("/proc/\(running.process(of: desktop).identifier)/stat"),
      as: UTF8.self)
    return try #require(stat.split(separator: ")").last?.split(separator: " ").dropFirst().first)
      .description.withCString { Int32(atoi($0)) }
  }

  /// Field 22 of /proc/PID/stat.
  private func startTime(of process: Int32) throws -> UInt64 {
    let stat = String(decoding: try Files.read("/proc/\(process)/stat"), as: UTF8.self)
    let fields = try #require(stat.split(separator: ")").last).split(separator: " ")
    return try #require(UInt64(fields[19]))
  }

  @Test("desktops of the pool are clones of it, and live and end as others do")
  func clones() async throws {
    let running = try RunningSupervisor()
    let template = try await make(try request(1, in: running), running)
    #expect(template.state == .ready && template.generation == 1)
    #expect(template.sign == "screen and processors rested" && template.memoryBytes > 0)
    #expect(!Files.exists(running.settings.stateDirectory + "/desktops/office-0"))

    for number in 1...3 {
      try await running.supervisor.start(try request(UInt64(number), in: running))
    }
    let parents = try Set((1...3).map { try parent(of: "office-\($0)", running) })
    #expect(parents.count == 1 && parents != [getpid()], "one process made all")
    #expect(await running.supervisor.comeUp(DesktopID(pool: pool, number: 1)) == .cloned)
    #expect(
      try await running.settledTemplate().clones.map(\.rawValue) == [
        "office-1", "office-2", "office-3",
      ])
    let office = DesktopID(rawValue: "office-1")
    #expect(try await running.supervisor.screenshot(office).starts(with: [0x89, 0x50]))

    // Another process is started when it has died, and serves on.
    let killed = try #require(parents.first)
    try ProcessHandle(identifier: killed, startTime: startTime(of: killed)).send(.kill)
    for number in 4...5 {
      try await running.supervisor.start(try request(UInt64(number), in: running))
    }
    let others = try Set((4...5).map { try parent(of: "office-\($0)", running) })
    #expect(others.count == 1 && others != parents && others != [getpid()])
    for number in 4...5 {
      try await running.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }

    // Its end is noticed, and it is found again by another carreld.
    try running.process(of: "office-2").send(.kill)
    var exits = running.supervisor.exits.makeAsyncIterator()
    // The desktop that was taken ended, too.
    #expect(await exits.next()?.desktop.rawValue == "office-0")
    while let exit = await exits.next(), exit.desktop.rawValue != "office-2" {}
    let next = try RunningSupervisor(after: running)
    let found = try await next.supervisor.survey()
    #expect(found.first { $0.desktop == office }?.state == .running)
    // That needs a process of its own for new clones.
    try await next.supervisor.start(try request(4, in: next))
    #expect(try await next.settledTemplate().clones.count == 4)
    try await next.supervisor.stop(office, graceSeconds: nil)

    try await next.supervisor.deleteTemplate(of: pool)
    #expect(try await next.settledTemplate().state != .ready)
    try await next.supervisor.start(try request(5, in: next))
    #expect(try parent(of: "office-5", next) == getpid(), "it booted")
    for number in 1...5 {
      try await next.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }
    #expect(try await next.supervisor.templates().isEmpty)
    #expect(
      try FileManager.default.contentsOfDirectory(
        atPath: next.settings.stateDirectory + "/templates"
      ).isEmpty)
  }

  @Test("a change of the pool makes a new generation, and the old one goes with its last clone")
  func generations() async throws {
    let running = try RunningSupervisor()
    _ = try await make(try request(1, in: running), running)
    try await running.supervisor.start(try request(1, in: running))
    // This one boots, and has a template made meanwhile.
    try await running.supervisor.start(try request(2, in: running, memoryMiB: 24))
    #expect(try parent(of: "office-2", running) == getpid())
    let second = try await running.settledTemplate()
    #expect(second.generation == 2 && second.state == .ready)
    #expect(try await running.supervisor.templates().map(\.generation) == [1, 2])
    try await running.supervisor.start(try request(3, in: running, memoryMiB: 24))
    #expect(try await running.settledTemplate().clones.map(\.rawValue) == ["office-3"])
    try await running.supervisor.discard(DesktopID(rawValue: "office-1"))
    #expect(try await running.supervisor.templates().map(\.generation) == [2])

    // The image's file is another.
    try Files.replace(running.directory.path("guest.elf"), with: SmallGuest.sleeping + [0])
    guard case .stale(let reason) = try await running.settledTemplate().state else {
      Issue.record("it serves on")
      return
    }
    #expect(reason.contains("image"))
    try await running.supervisor.start(try request(4, in: running, memoryMiB: 24))
    #expect(try parent(of: "office-4", running) == getpid())
    #expect(try await running.settledTemplate().generation == 3)
  }

  @Test("of another processor it serves no more, and a new generation is made")
  func processor() async throws {
    let running = try RunningSupervisor()
    _ = try await make(try request(1, in: running), running)
    try await running.supervisor.start(try request(1, in: running))
    #expect(try parent(of: "office-1", running) != getpid())
    // As after the host's processor was changed, or the state was moved to another host.
    let record = running.settings.stateDirectory + "/templates/office@1/template.json"
    let parsed = try JSONSerialization.jsonObject(with: Data(try Files.read(record)))
    var members = try #require(parsed as? [String: Any])
    let processor = try #require(members["processor"] as? String)
    #expect(processor.contains("model name") && processor.contains("flags"))
    members["processor"] = processor.replacingOccurrences(of: "flags", with: "flags\t: none")
    try Files.replace(record, with: Array(try JSONSerialization.data(withJSONObject: members)))
    #expect(
      try await running.settledTemplate().state == .stale("the host has another processor"))
    try await running.supervisor.start(try request(2, in: running))
    #expect(try parent(of: "office-2", running) == getpid(), "it boots")
    let next = try await running.settledTemplate()
    #expect(next.generation == 2 && next.state == .ready)
    try await running.supervisor.start(try request(3, in: running))
    #expect(try await running.settledTemplate().clones.map(\.rawValue) == ["office-3"])
    for number in 1...3 {
      try await running.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }
  }

  @Test("clones have the queues of the template's network card, or another one", .needs("passt"))
  func queues() async throws {
    let running = try RunningSupervisor()
    func request(_ number: UInt64, _ queues: Int) throws -> LaunchRequest {
      try self.request(
        number, in: running, hardware: Hardware(network: .user(.off), networkQueues: queues))
    }
    let template = try await make(
      try request(1, Hardware.Network.mostQueues), running, limitSeconds: 300)
    #expect(template.state == .ready, "\(template)")
    for number in 1...2 {
      try await running.supervisor.start(
        try request(UInt64(number), Hardware.Network.mostQueues))
    }
    #expect(try await running.settledTemplate().clones.map(\.rawValue) == ["office-1", "office-2"])
    #expect(try parent(of: "office-1", running) != getpid())
    try await running.supervisor.start(try request(3, 2))
    #expect(try parent(of: "office-3", running) == getpid(), "it boots")
    #expect(try await running.settledTemplate().generation == 2)
    try await running.supervisor.start(try request(4, 2))
    #expect(try await running.settledTemplate().clones.map(\.rawValue) == ["office-4"])
    for number in 1...4 {
      try await running.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }
  }

  @Test("clones have the template's disk under their own, and keep it", .needs("qemu-img"))
  func disks() async throws {
    let running = try RunningSupervisor()
    let state = running.settings.stateDirectory
    try FileManager.default.createDirectory(
      atPath: "\(state)/images/office", withIntermediateDirectories: true)
    let image = "\(state)/images/office/image.raw"
    try Files.replace(image, with: [UInt8](repeating: 0, count: 1 << 20))
    func request(_ number: UInt64, _ generation: UInt64, _ disk: LaunchRequest.Disk)
      -> LaunchRequest
    {
      LaunchRequest(
        desktop: DesktopID(pool: pool, number: number), generation: generation,
        image: Image(kind: .disk, path: image), memoryMiB: 16, cpus: 1,
        hardware: Hardware(network: .none, diskBus: .virtio), disk: disk, user: nil,
        keyboardLayout: "en-us")
    }
    let template = try await make(request(1, 1, .fresh), running, limitSeconds: 300)
    #expect(template.state == .ready && template.diskBytes > 0, "\(template)")
    for number in 1...2 {
      try await running.supervisor.start(request(UInt64(number), 1, .fresh))
    }
    #expect(try await running.settledTemplate().clones.count == 2)
    let overlay = "\(state)/desktops/office-1/disk-1.qcow2"
    try await running.supervisor.stop(DesktopID(rawValue: "office-1"), graceSeconds: nil)
    let (_, chain) = try running.directory.run("qemu-img info -U --backing-chain \(overlay)")
    #expect(chain.contains("/templates/office@1/disk-1.qcow2") && chain.contains(image), "\(chain)")
    // From now on it boots from what it has.
    try await running.supervisor.start(request(1, 2, .keep))
    #expect(try parent(of: "office-1", running) == getpid())
    try await running.supervisor.deleteTemplate(of: pool)
    #expect(Files.exists("\(state)/templates/office@1/disk-1.qcow2"))
    for number in 1...2 {
      try await running.supervisor.discard(DesktopID(pool: pool, number: UInt64(number)))
    }
    #expect(try await running.supervisor.templates().isEmpty)
    #expect(try Files.read(image).allSatisfy { $0 == 0 })
  }

  @Test("one that never is ready, or that nobody wants any more, leaves nothing")
  func failures() async throws {
    let running = try RunningSupervisor()
    let request = try request(1, in: running)
    try await running.supervisor.makeTemplate(
      TemplatePlan(
        pool: pool, machine: TemplateMachine(of: request),
        readiness: try TemplateReadiness(sign: .agent, settleSeconds: 1, limitSeconds: 2)))
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.makeTemplate(
        TemplatePlan(
          pool: pool, machine: TemplateMachine(of: request), readiness: try TemplateReadiness()))
    }
    guard case .failed(let problem) = try await running.settledTemplate().state else {
      Issue.record("it did not fail")
      return
    }
    #expect(problem.contains("no guest agent answered"))
    try await running.supervisor.deleteTemplate(of: pool)
    #expect(try await running.supervisor.templates().isEmpty)

    try await running.supervisor.makeTemplate(
      TemplatePlan(
        pool: pool, machine: TemplateMachine(of: request),
        readiness: try TemplateReadiness(sign: .agent, settleSeconds: 1, limitSeconds: 600)))
    try await running.supervisor.deleteTemplate(of: pool)
    while try await !running.supervisor.templates().isEmpty {
      try await Task.sleep(for: .milliseconds(10))
    }
    #expect(!Files.exists(running.settings.stateDirectory + "/desktops/office-0"))
    await #expect(throws: BrokerError.self) {
      try await running.supervisor.deleteTemplate(of: pool)
    }
  }

  @Test("one that the disk has no room for is told as failed, and leaves nothing", .needsRoot)
  func full() async throws {
    let small = try SmallDisk(kibibytes: 1024)
    let running = try RunningSupervisor { $0.stateDirectory = small.path }
    let path = try running.directory.write(
      SmallGuest.sleeping(with: [UInt8](repeating: 0x5A, count: 2 << 20)), to: "guest.elf")
    let request = LaunchRequest(
      desktop: DesktopID(pool: pool, number: 1), generation: 1,
      image: Image(kind: .kernel, path: path), memoryMiB: 16, cpus: 1, disk: .fresh, user: nil,
      keyboardLayout: "en-us")
    let template = try await make(request, running)
    guard case .failed(let problem) = template.state else {
      Issue.record("it did not fail: \(template)")
      return
    }
    #expect(problem.contains("No space left"), "\(problem)")
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: small.path + "/templates").isEmpty)
    try await running.supervisor.start(request)
    #expect(try parent(of: "office-1", running) == getpid(), "it boots all the same")
  }

  @Test("one whose machine is killed while it is taken fails, and the one before serves on")
  func killed() async throws {
    let running = try RunningSupervisor()
    try running.directory.write(SmallGuest.dirtying(memoryMiB: 192), to: "guest.elf")
    let request = try request(1, in: running, memoryMiB: 192)
    #expect(try await make(request, running).state == .ready)
    let draft = running.settings.stateDirectory + "/templates/office@2.new"
    let killing = Task {
      while true {
        // As soon as some of its memory is in the file.
        let files = (try? FileManager.default.contentsOfDirectory(atPath: draft)) ?? []
        if let file = files.first(where: { $0.hasSuffix(".snapshot.new") }),
          let stored = try? FileDescriptor.open("\(draft)/\(file)").storedBytes,
          stored > 16 << 20
        {
          return try running.process(of: "office-0").send(.kill)
        }
        try await Task.sleep(for: .milliseconds(1))
      }
    }
    let second = try await make(request, running)
    try await killing.value
    guard case .failed = second.state, second.generation == 2 else {
      Issue.record("it did not fail: \(second)")
      return
    }
    #expect(!Files.exists(draft))
    #expect(!Files.exists(running.settings.stateDirectory + "/desktops/office-0"))
    try await running.supervisor.start(request)
    #expect(try parent(of: "office-1", running) != getpid(), "it is a clone")
    #expect(try await running.supervisor.templates().first?.clones == [request.desktop])
    try await running.supervisor.discard(request.desktop)
  }

  /// The file with the memory of the first generation.
  private func memory(_ running: RunningSupervisor) throws -> String {
    let directory = running.settings.stateDirectory + "/templates/office@1"
    let name = try FileManager.default.contentsOfDirectory(atPath: directory).first {
      $0.hasSuffix(".snapshot")
    }
    return "\(directory)/\(try #require(name))"
  }

  @Test("what was saved of a desktop that a user had is no template")
  func session() async throws {
    let running = try RunningSupervisor()
    _ = try await make(try request(1, in: running), running)
    let memory = try memory(running)
    let office = DesktopID(rawValue: "office-1")
    /// Has the template be of what a desktop is suspended to, and another cloned from that.
    func isTemplate(_ generation: UInt64, _ use: () async throws -> Void) async throws -> Bool {
      try await running.supervisor.start(try request(1, in: running, generation: generation))
      try await use()
      try await running.supervisor.suspend(office)
      try Files.replace(
        memory,
        with: try Files.read(running.settings.stateDirectory + "/desktops/office-1/suspended"))
      // It has the former one in memory.
      await running.supervisor.endTemplates()
      let other = try request(2, in: running, generation: generation)
      try await running.supervisor.start(other)
      let isClone = try parent(of: "office-2", running) != getpid()
      try await running.supervisor.discard(other.desktop)
      return isClone
    }
    #expect(try await isTemplate(1) {}, "nobody had it")
    let log = running.settings.runtimeDirectory + "/office@1.log"
    let text = { String(decoding: try Files.read(log), as: UTF8.self) }
    #expect(try !text().contains("what a user did in a session"))
    #expect(
      try await !isTemplate(2) {
        try await running.supervisor.identify(
          office, as: DesktopIdentity(user: UserName(rawValue: "alice"), keyboardLayout: "en-us"))
      })
    #expect(try text().contains("what a user did in a session"))
    try await running.supervisor.discard(office)
  }

  @Test("a desktop boots when its template cannot serve")
  func broken() async throws {
    let running = try RunningSupervisor()
    _ = try await make(try request(1, in: running), running)
    let directory = running.settings.stateDirectory + "/templates/office@1"
    try Files.replace(try memory(running), with: [1, 2, 3])
    try await running.supervisor.start(try request(1, in: running))
    #expect(try parent(of: "office-1", running) == getpid())
    #expect(try await running.settledTemplate().clones.isEmpty)
    try Files.replace("\(directory)/template.json", with: Array("{".utf8))
    try await running.supervisor.start(try request(2, in: running))
    guard case .failed = try await running.settledTemplate().state else {
      Issue.record("a broken record is told")
      return
    }
    try await running.supervisor.deleteTemplate(of: pool)
    #expect(!Files.exists(directory))
  }
}
