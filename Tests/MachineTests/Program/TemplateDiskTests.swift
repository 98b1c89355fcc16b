import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("Disks of clones", .needsKVM, .needs("qemu-img"))
struct TemplateDiskTests {
  /// A template of a guest that was saved in the midst of counting on its disk.
  private struct CountingTemplate {
    let directory: TemporaryDirectory
    let bus: String
    private let template: RunningTemplate

    init(_ bus: CountingProgram.Bus) throws {
      let guest = try CountingProgram(bus, .qcow2)
      try guest.awaitTurns(2)
      let end = try guest.save(try guest.running.control(), overlay: "later")
      try #require(end["status"] == "completed", "\(end)")
      try guest.kill()
      directory = guest.directory
      self.bus = bus == .ide ? "ide" : "virtio"
      template = try RunningTemplate(
        ofSaved: ["--vga", "none", "--disk", "@/disk,format=qcow2,bus=\(self.bus)"],
        in: directory)
    }

    /// Has a clone made with that disk; what it counts is in the file of its name.
    func clone(_ name: String, _ disk: String) throws -> CloneAnswer {
      var request = CloneRequest(name: name)
      request.serial = directory.path(name)
      request.disks = ["\(directory.path(disk)),bus=\(bus)"]
      return try template.ask(request)
    }

    func counted(_ name: String) -> String {
      String(decoding: (try? directory.read(name)) ?? [], as: UTF8.self)
    }
  }

  @Test(
    "each goes on with its own in the midst of the template's requests",
    arguments: [CountingProgram.Bus.ide, .virtio])
  func own(bus: CountingProgram.Bus) throws {
    let template = try CountingTemplate(bus)
    let frozen = try template.directory.read("disk")
    var clones: [ProcessHandle] = []
    // The last one is another to look at than its template's, and so is built anew.
    for (name, options) in [("a", ""), ("b", ",iops=400"), ("c", ",serial=OTHER")] {
      try CountingProgram.shell(
        "qemu-img create -q -f qcow2 -b disk -F qcow2 \(name).qcow2", in: template.directory)
      let answer = try template.clone(name, "\(name).qcow2,format=qcow2\(options)")
      guard case .started(let process, let startTime) = answer else {
        Issue.record("\(answer)")
        return
      }
      clones.append(try ProcessHandle(identifier: process, startTime: startTime))
    }
    defer { for clone in clones { try? clone.send(.kill) } }
    try eventually("all to count on") {
      ["a", "b", "c"].allSatisfy { name in
        let text = template.counted(name)
        return text.count >= 3 || text.contains { $0 != "." }
      }
    }
    for name in ["a", "b", "c"] {
      #expect(template.counted(name).allSatisfy { $0 == "." }, "\(name)")
    }
    #expect(try template.directory.read("disk") == frozen)
  }

  @Test("of another size, or that is not there, are refused, and the next clone has its own")
  func refused() throws {
    let template = try CountingTemplate(.virtio)
    try CountingProgram.shell("qemu-img create -q -f qcow2 large 2M", in: template.directory)
    for (disk, text) in [
      ("large,format=qcow2", "has 2097152 bytes instead of 1048576"),
      ("none,format=qcow2", "none"),
    ] {
      let answer = try template.clone("x", disk)
      guard case .refused(let problem) = answer else {
        Issue.record("\(answer)")
        continue
      }
      #expect(problem.contains(text), "\(problem)")
    }
    try CountingProgram.shell(
      "qemu-img create -q -f qcow2 -b disk -F qcow2 good", in: template.directory)
    guard
      case .started(let process, let startTime) = try template.clone("y", "good,format=qcow2")
    else {
      Issue.record("no clone")
      return
    }
    let clone = try ProcessHandle(identifier: process, startTime: startTime)
    defer { try? clone.send(.kill) }
    try eventually("it to count on") { template.counted("y").contains(".") }
  }
}
