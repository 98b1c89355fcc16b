import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite(
  "A guest agent in the small Linux", .needsKVM, .needsSmallLinux, .needsDesktopDisk, .serialized)
struct GuestAgentTests {
  /// Starts Debian's agent on the channel.
  private func withAgent() throws -> SmallLinux {
    let linux = try SmallLinux()
    let port = try linux.channelDevice()
    _ = try linux.run(
      "desktop qemu-ga --method virtio-serial --path /dev/\(port) --statedir /run "
        + "--pidfile /run/agent --daemonize 2>&1")
    return linux
  }

  @Test("Debian's agent answers over the channel, one connection after another")
  func agent() throws {
    let linux = try withAgent()
    #expect(try ask(.ping, linux) == [:])
    let info = try #require(GuestAgentAnswers.info(try ask(.info, linux)))
    for name in ["guest-shutdown", "guest-set-time"] {
      #expect(info.commands.contains { $0.name == name && $0.isEnabled }, "\(name)")
    }
    _ = try linux.run("ip addr add 192.0.2.7/24 dev eth0")
    let interfaces = try #require(GuestAgentAnswers.interfaces(try ask(.networkInterfaces, linux)))
    let card = interfaces.first { $0.name == "eth0" }
    #expect(card?.addresses.map { "\($0.text)/\($0.prefix)" } == ["192.0.2.7/24"])

    let program = GuestAgentCommand.Program(
      path: "sh", arguments: ["-c", "cat; exit 3"], input: Array("through the channel".utf8))
    let started = try ask(.execute(program), linux)
    let process = try #require(GuestAgentAnswers.process(started))
    var execution: GuestAgentAnswers.Execution?
    while execution?.hasEnded != true {
      let status = try ask(.executionStatus(process: process), linux)
      let known = try #require(GuestAgentAnswers.execution(status))
      execution = known
    }
    #expect(execution?.output == Array("through the channel".utf8))
    #expect(execution?.status == 3)

    // What somebody left half asked disturbs nobody.
    do {
      let rude = try linux.channel()
      try rude.descriptor.writeAll(Array("{\"execute\": \"guest-info\"}\n{\"exec".utf8))
    }
    #expect(GuestAgentAnswers.isFrozen(try ask(.freezeStatus, linux)) == false)
    try linux.expectKnownLog()
  }

  @Test("Debian's agent holds file systems still: what writes waits until they are let go")
  func freeze() throws {
    let linux = try withAgent()
    try linux.run(
      "desktop mkfs.ext4 -q /tmp/image 8M && mkdir /mnt/run/disk"
        + " && mount -t ext4 -o loop /tmp/image /mnt/run/disk")
    let frozen = try ask(.freeze, linux)
    #expect(try #require(GuestAgentAnswers.count(frozen)) >= 1)
    #expect(GuestAgentAnswers.isFrozen(try ask(.freezeStatus, linux)) == true)
    let writer = try linux.run(
      "(echo text >/mnt/run/disk/file; echo written >/tmp/written) & echo $!"
    ).prefix { $0.isNumber }
    // It waits in the kernel.
    try linux.run("while ! grep -q '^State:.D' /proc/\(writer)/status; do :; done")
    #expect(try linux.run("ls /tmp").contains("written") == false)
    #expect(try #require(GuestAgentAnswers.count(try ask(.thaw, linux))) >= 1)
    try linux.run("while ! grep -q written /tmp/written; do :; done 2>/dev/null")
    #expect(try linux.run("cat /mnt/run/disk/file") == "text\n")
    #expect(GuestAgentAnswers.isFrozen(try ask(.freezeStatus, linux)) == false)
    try linux.expectKnownLog()
  }

  @Test("Debian's agent sets a password, which is the user's then", .needs("python3"))
  func password() throws {
    let linux = try withAgent()
    try linux.run("cp -a /mnt/etc /tmp/etc && mount --bind /tmp/etc /mnt/etc")
    let password = "correct horse 7"
    _ = try ask(.setPassword(user: "root", password: Array(password.utf8)), linux)
    let fields = try linux.run("grep ^root: /mnt/etc/shadow").split(separator: ":")
    let hash = try #require(fields.dropFirst().first)
    let files = try TemporaryDirectory()
    for (word, isIt) in [(password, "True"), ("another", "False")] {
      let check = "import crypt, sys; print(crypt.crypt(sys.argv[1], sys.argv[2]) == sys.argv[2])"
      let (status, output) = try files.run(
        "python3 -W ignore -c '\(check)' '\(word)' '\(hash)'")
      #expect(status == 0 && output == "\(isIt)\n", "\(hash): \(output)")
    }
    #expect(throws: QMPError.self) {
      try ask(.setPassword(user: "nobody-here", password: [0x61]), linux)
    }
  }

  @Test("Debian's agent switches the machine off when told to")
  func shutdown() throws {
    let linux = try withAgent()
    #expect(try converse(.shutdown(.powerdown), linux) == nil)
    #expect(linux.machine.waitForEnd() == .guestShutdown)
  }

  private func ask(_ command: GuestAgentCommand, _ linux: SmallLinux) throws -> JSON {
    try #require(try converse(command, linux))
  }

  /// The answer; there is none to what ends the machine.
  private func converse(_ command: GuestAgentCommand, _ linux: SmallLinux) throws -> JSON? {
    let socket = try linux.channel()
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    var client = GuestAgentClient(
      asking: command, token: .random(in: 1...1_000_000), limit: 1 << 20)
    try socket.descriptor.writeAll(client.pendingOutput())
    while true {
      try #require(!(try poller.wait(milliseconds: 120_000)).isEmpty, "\(command.name): no answer")
      for message in client.receive(try socket.receive().bytes) {
        switch message {
        case .synchronised:
          try socket.descriptor.writeAll(client.pendingOutput())
          guard command.isAnswered else { return nil }
        case .answer(let answer): return try answer.get()
        case .protocolViolation(let text): throw QMPError(.generic, text)
        }
      }
    }
  }
}
