import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("The command line of carrel-vmm")
struct CommandLineTests {
  private func run(_ arguments: [String]) throws -> (status: Int, output: String) {
    let directory = try TemporaryDirectory()
    let words = arguments.map { "'\($0)'" }.joined(separator: " ")
    return try directory.run("timeout 20 \(Programs.built("carrel-vmm")) \(words)")
  }

  @Test(
    "combinations that cannot be are refused with the reason",
    arguments: [
      ("--kernel k --firmware uefi", "--kernel starts without firmware, or by SeaBIOS"),
      ("--kernel k --firmware file", "give --firmware bios or none"),
      ("--initrd i", "--initrd is handed to a kernel: give --kernel too"),
      ("--append a", "--append is a kernel's command line: give --kernel too"),
      ("--kernel k --boot c", "--boot tells firmware where to boot from, which with --kernel is"),
      ("--boot d", "--boot d boots from the CD-ROM: give --cdrom too"),
      ("--boot c", "--boot c boots from a disk: give --disk too"),
      ("--vnc 127.0.0.1:0 --display-link d", "--vnc and --display-link both take the screen"),
      ("--vga none --vnc 127.0.0.1:0", "--vga none leaves nothing to show"),
      ("--vga none --display-link d", "--vga none leaves nothing to show"),
      ("--vga none --video-memory 16M", "--video-memory belongs to the display adapter"),
      ("--keyboard-layout de", "--keyboard-layout is for viewers of --vnc"),
      ("--memory 512K", "give at least 1M"), ("--memory 2T", "memory is limited to 1T"),
      ("--cpus 0", "0 CPUs cannot be: give 1 to 64"),
      ("--video-memory 3M", "give a power of two, 1M to 256M"),
      ("--disk a --disk b --disk c --disk d", "room for three disks"),
      ("--disk a,bps=1M,bps-wr=1M", "bps limits reads and writes together: leave it out"),
      ("--disk a,iops=9,iops-max=8", "iops-max is a burst above iops: give 9 or more"),
      ("--disk a,iops-wr-max=8", "burst above iops-wr: give that too"),
      ("--disk a,iops=9,iops-max-length=8", "iops-max-length is how long iops-max lasts"),
      ("--disk a,bps=9,iops-size=4K", "iops-size says what an operation is"),
      ("--fw-cfg name=a,string=1 --fw-cfg name=a,string=2", "two fw_cfg files of the name \"a\""),
      ("--fw-cfg name=a,file=/nonexistent/f", "/nonexistent/f"),
      ("--fw-cfg name=a,file=/nonexistent/f,,g", "/nonexistent/f,g"),
      ("--vsock cid=3", "vsock has the guest's number and a socket"),
      ("--vsock cid=2,socket=a", "2 cannot be a guest's CID"),
      ("--vga virtio,outputs=5", "5 outputs cannot be: give 1 to 4"),
      ("--channel name=a", "a channel has a name and a socket"),
      ("--channel name=,socket=a", "cannot be a channel's name"),
      ("--channel name=a,socket=a --channel name=a,socket=b", "two channels of the name"),
    ])
  func combinations(arguments: String, reason: String) throws {
    let (status, output) = try run(["run"] + arguments.split(separator: " ").map(String.init))
    #expect(status == 64)
    #expect(output.contains(reason), "\(output)")
  }

  @Test(
    "a bad value is refused with what there is instead",
    arguments: [
      ("--memory", "0", "<size>"), ("--memory", "1X", "<size>"), ("--cpus", "two", "--cpus"),
      ("--disk", "", "it begins with the path of an image"),
      ("--disk", "a,format=vmdk", "format=vmdk is not supported; format is raw or qcow2"),
      ("--disk", "a,bases=/b", "bases=DIR is for format=qcow2"),
      ("--disk", "a,format=qcow2,bases=b", "bases=b is no directory; give its whole path"),
      ("--disk", "a,bps=fast", "bps=fast is no number of bytes; it may have unit K, M or G"),
      ("--disk", "a,bps-rd-max=-1", "bps-rd-max=-1 is no number of bytes"),
      ("--disk", "a,bps=99999999999G", "bps=99999999999G is too much"),
      ("--disk", "a,iops=1K", "iops=1K is no number."),
      ("--disk", "a,iops-rw=1", "there is no disk option 'iops-rw=1'"),
      ("--disk", "a,iops-max-max=1", "and limits: bps[-rd|-wr][-max]=SIZE"),
      ("--disk", "a,bus=scsi", "bus=scsi is not supported; bus is ide or virtio"),
      ("--disk", "a,readonly=yes", "readonly is on or off"),
      (
        "--disk", "a,cache=none", "there is no disk option 'cache=none'; there are format=raw|qcow2"
      ),
      ("--fw-cfg", "opt/x", "it begins with name=N"),
      ("--fw-cfg", "name=,string=x", "it begins with name=N"),
      ("--fw-cfg", "name=opt/x", "after the name comes string=TEXT or file=PATH"),
      ("--fw-cfg", "name=opt/x,file=", "after the name comes string=TEXT or file=PATH"),
      ("--fw-cfg", "name=opt/x,gen_id=y", "after the name comes string=TEXT or file=PATH"),
      ("--boot", "n", "there is no boot device 'n'; there are c, the disks, and d, the CD-ROM"),
      ("--boot", "cd", "there is no boot device 'cd'"),
      ("--boot", "c,c", "boot device c is there twice"),
      ("--serial", "", "give stdio, none, unix:PATH or a path"),
      ("--serial", "unix:", "give stdio, none, unix:PATH or a path"),
      ("--serial", "tcp:127.0.0.1:1", "give stdio, none, unix:PATH or a path"),
      ("--serial", "mon:stdio", "no such kind of serial port"),
      ("--serial", "pty", "no such kind of serial port"),
      ("--audio", "sb16", "there is no sound card 'sb16'; give ac97, virtio or none"),
      ("--audio", "ac97,mp3=a", "there is no sound option 'mp3=a'; there is wav=FILE"),
      ("--audio", "none,wav=", "there is no sound option 'wav='"),
      ("--audio", "none,wav=a,b", "there is no sound option 'b'"),
      ("--disk", "a,,b,c", "there is no disk option 'c'"),
      ("--disk", "a,,b,format=vmdk", "format=vmdk is not supported"),
      ("--channel", "name=a,socket=b,c", "there is no channel option 'c'"),
      ("--net", "socket:a,,b,c", "there is no network option 'c'"),
      ("--fw-cfg", "name=opt/x,string=a,b", "with commas doubled, and nothing else"),
      ("--restore", "/a,identity=maybe", "identity is same or new: give FILE[,remove=on|off]"),
      ("--restore", "/a,remove=yes", "remove is on or off"),
      ("--net", "user,host=maybe", "host=maybe does not exist; give on or off"),
      ("--net", "none,host=off", "host= says what user reaches; leave it out"),
      ("--net", "user,dns=1", "there are mac=ADDRESS, queues=N and host=on|off"),
      ("--vga", "cirrus", "std"), ("--vnc", "5900", "<host:port>"),
      ("--keyboard-layout", "xx", "de"), ("--nonsense", "1", "--nonsense"),
    ])
  func values(option: String, value: String, reason: String) throws {
    let (status, output) = try run(["run", option, value])
    #expect(status == 64)
    #expect(output.contains(reason), "\(output)")
  }

  @Test("nothing at all is no machine: it is told what could be said")
  func nothing() throws {
    let (status, output) = try run([])
    #expect(status == 64)
    #expect(output.contains("'carrel-vmm --help'") && output.contains("Usage: carrel-vmm"))
  }

  private static let options = [
    "memory", "cpus", "firmware", "kernel", "initrd", "append", "disk", "net", "channel", "vsock",
    "audio",
    "cdrom",
    "boot",
    "vga",
    "video-memory", "serial", "fw-cfg", "vnc", "display-link", "control", "name",
    "uuid", "cpu", "keyboard-layout", "runtime-directory", "no-reboot", "on-internal-error",
    "nvram", "restore", "no-rng", "no-balloon", "usb", "debug-console",
    "version",
  ]

  @Test("--help names every option, with words about it", arguments: options)
  func help(option: String) throws {
    let (status, output) = try run(["run", "--help"])
    #expect(status == 0)
    let lines = output.split(separator: "\n", omittingEmptySubsequences: false)
    let at = try #require(lines.firstIndex { $0.hasPrefix("  --\(option)") })
    let words = lines[at].split(separator: " ", omittingEmptySubsequences: true)
    let description = words.dropFirst().filter { !$0.hasPrefix("<") }
    let following = at + 1 < lines.count ? lines[at + 1] : ""
    #expect(!description.isEmpty || following.hasPrefix("          "))
  }

  @Test("there is no option that these tests do not know, and check is named")
  func completeness() throws {
    let (_, output) = try run(["run", "--help"])
    let named = output.split(separator: "\n").compactMap { line -> String? in
      guard line.hasPrefix("  --") else { return nil }
      return String(line.dropFirst(4).prefix { $0 != " " && $0 != "/" })
    }
    #expect(Set(named) == Set(Self.options))
    let commands = try run(["--help"]).output
    for name in ["check", "template"] { #expect(commands.contains(name)) }
  }
}
